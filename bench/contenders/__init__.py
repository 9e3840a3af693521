"""The servers under test, one file each. `registry` knows them by name."""
