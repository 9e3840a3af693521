"""Headers that travel with a message, and the task that runs in this process."""
