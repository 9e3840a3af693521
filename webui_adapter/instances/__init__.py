"""How the instances of the gateway know of each other: heartbeats, and commands for sessions of another instance."""
