"""The effect of clients that flood the gateway on a user."""
