"""The Redis backend: clients and stores, scripts, connections."""
