"""Access of connections and commands: tokens, authoriser, origins, rate limits."""
