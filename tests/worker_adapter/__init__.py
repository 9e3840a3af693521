"""Tests of worker_adapter, with real workers."""
