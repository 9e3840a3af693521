"""Rights in Redis: the roles, and commands that Redis refused."""
