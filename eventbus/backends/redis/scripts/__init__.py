"""The Lua scripts as typed Python calls."""
