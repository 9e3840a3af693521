"""Names of keys in Redis: the only place that makes them. The channel is the hash tag, so a channel is one slot."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Keys"]


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys under one prefix; ``docs/PROTOCOL.md`` has the table of what is in them."""

    prefix: str

    def channel(self, channel: str) -> tuple[str, str, str, str]:
        """State, log, snapshot and ids of a channel: KEYS[1..4] of every script."""
        stem = f"{self.prefix}:{{{channel}}}:"
        return f"{stem}state", f"{stem}log", f"{stem}snapshot", f"{stem}ids"

    def operation(self, channel: str, operation: str) -> tuple[str, str]:
        """Counts and leaves of an operation of that channel: KEYS[5..6] of ``advance``."""
        stem = f"{self.prefix}:{{{channel}}}:operation:{operation}"
        return stem, f"{stem}:tasks"

    def live(self, channel: str) -> str:
        """The pub/sub channel."""
        return f"{self.prefix}:{{{channel}}}:live"

    def channel_of_live(self, live: str) -> str:
        """The channel whose publications arrive on ``live``."""
        return live[len(self.prefix) + 2 : -len("}:live")]
