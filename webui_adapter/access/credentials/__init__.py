"""Credentials: keys of tokens, and tickets."""
