"""The audit log in Redis."""
