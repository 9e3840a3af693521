"""Work for all instances: sweeper, lease checker, dead-letter writer, broker control."""
