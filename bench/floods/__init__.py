"""What a user notices of clients that flood the gateway."""
