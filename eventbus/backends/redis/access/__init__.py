"""Ended sessions and revoked tokens, as kept in Redis."""
