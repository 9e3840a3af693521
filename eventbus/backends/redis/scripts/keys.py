"""Names of keys in Redis: the only place that makes them. The channel is the hash tag, so a channel is one slot."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from eventbus.protocol.policy import LANES

__all__ = ["Keys"]


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys under one prefix; ``docs/reference/redis-keys.md`` has the table of what is in them."""

    prefix: str

    def channel(self, channel: str) -> tuple[str, str, str, str]:
        """State, log, snapshot and ids of a channel: KEYS[1..4] of every script."""
        return _of_channel(self.prefix, channel)

    def operation(self, channel: str, operation: str) -> tuple[str, str, str]:
        """Counts, leaves and leases of an operation of that channel: KEYS[5..7] of ``_operation.lua``."""
        stem = f"{self.prefix}:{{{channel}}}:operation:{operation}"
        return stem, f"{stem}:tasks", f"{stem}:leases"

    def operations(self, channel: str) -> str:
        """Operations of that channel, by when they were first heard of."""
        return f"{self.prefix}:{{{channel}}}:operations"

    @property
    def leases(self) -> str:
        """Operations of which something runs, as ``channel operation``, by when to look at their leases."""
        return f"{self.prefix}:leases"

    @property
    def cancelled(self) -> str:
        """Operations that somebody wants stopped, as ``channel operation``, by when that was."""
        return f"{self.prefix}:cancelled"

    def outbox(self, worker: str) -> str:
        """What the processes of a worker say of their outboxes."""
        return f"{self.prefix}:outbox:{worker}"

    def pending(self, channel: str) -> tuple[str, ...]:
        """Pending, its three lanes, dead, dead:at and acked: KEYS[5..11] of ``_pending.lua``."""
        stem = f"{self.prefix}:{{{channel}}}:"
        pending, dead = f"{stem}pending", f"{stem}dead"
        return (pending, *(f"{pending}:{lane}" for lane in LANES), dead, f"{dead}:at", f"{stem}acked")

    def swept(self, channel: str) -> str:
        """The highest fence of a sweeper that was here."""
        return f"{self.prefix}:{{{channel}}}:swept"

    @property
    def index(self) -> str:
        """Channels that have pending or dead entries, by when to look at them."""
        return f"{self.prefix}:letters"

    @property
    def totals(self) -> str:
        """How many are pending and dead over all channels, as the sweeper last saw them."""
        return f"{self.prefix}:letters:totals"

    @property
    def oldest(self) -> str:
        """Channels with dead letters, by when their oldest one died."""
        return f"{self.prefix}:letters:dead"

    @property
    def sweeper(self) -> tuple[str, str]:
        """The sweeper's lease, and the fence that grows with each."""
        return f"{self.prefix}:sweeper", f"{self.prefix}:sweeper:fence"

    @property
    def canary(self) -> str:
        """The pub/sub channel through which each instance hears its own probe."""
        return f"{self.prefix}:probe"

    def probe(self, instance: str) -> str:
        """What an instance writes to see whether Redis takes writes."""
        return f"{self.prefix}:probe:{instance}"

    def live(self, channel: str) -> str:
        """The pub/sub channel."""
        return f"{self.prefix}:{{{channel}}}:live"

    def channel_of_live(self, live: bytes) -> str:
        """The channel whose publications arrive on ``live``."""
        return live[len(self.prefix) + 2 : -6].decode()  # 6: as long as "}:live"


@lru_cache(maxsize=8192)
def _of_channel(prefix: str, channel: str) -> tuple[str, str, str, str]:
    # Remembered: asked for with each batch of each channel, and the only work in it.
    stem = f"{prefix}:{{{channel}}}:"
    return f"{stem}state", f"{stem}log", f"{stem}snapshot", f"{stem}ids"
