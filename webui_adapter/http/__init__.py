"""FastAPI routes: probes, metrics, operations, dead letters, client files."""
