"""Metrics and probes, for one process and for several workers."""
