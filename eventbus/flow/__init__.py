"""Flow control: priority queue, rate limiter, circuit breaker. Pure."""
