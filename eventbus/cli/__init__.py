"""The command line: `eventbus schema`, `eventbus dead-letters`."""
