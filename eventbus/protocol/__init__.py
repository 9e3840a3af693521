"""Names, positions, records, history and recovery: the bytes between worker, Redis and gateway. Pure."""
