"""Channels of one instance: hub, validation, history reads, recovery, redelivery."""
