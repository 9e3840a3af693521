"""Redis Cluster: which node has a slot, and connections that route to it."""
