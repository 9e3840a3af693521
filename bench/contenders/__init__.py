"""The servers under test, one file each. `registry` finds them by name."""
