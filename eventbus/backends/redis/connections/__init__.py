"""Connections to Redis: blocking, pipelined, and the protocol's bytes."""
