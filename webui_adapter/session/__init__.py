"""One browser connection: states, subscriptions, send queue, output. Pure."""
