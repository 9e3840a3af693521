"""An operation's state machine, its events, and how it is looked up."""
