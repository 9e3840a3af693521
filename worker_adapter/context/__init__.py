"""What travels with a message, and which task runs in this process."""
