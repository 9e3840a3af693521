"""Paths for admins: who may use them, sessions and revoked tokens."""
