"""Who may connect and how often: tokens, authoriser, origins, rate limits."""
