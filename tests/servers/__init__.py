"""Several real servers as one system, for tests: a Redis Cluster, and a master that sentinels watch."""
