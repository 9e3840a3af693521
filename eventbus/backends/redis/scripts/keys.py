"""Names of the keys in Redis; no other module makes them. The channel is the hash tag, so a channel
is one slot.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from eventbus.protocol.policy import LANES
from eventbus.settings import BusSettings

__all__ = ["Keys"]


@dataclass(frozen=True, slots=True)
class Keys:
    """Key names under one prefix. ``docs/reference/redis-keys.md`` describes their values.

    Methods take a channel such as ``user:42``; ``index`` and the other properties belong to all
    channels.

    Attributes:
        prefix: the first part of each name, without the colon.
        database: number of the database. Pub/sub ignores it, so other databases than 0 have it in the names of
            their pub/sub channels.
        cluster: whether the keys are in a cluster. There the sweeper's three indices are in one slot.
    """

    prefix: str
    database: int = 0
    cluster: bool = False

    @classmethod
    def of(cls, settings: BusSettings) -> Keys:
        """Return the names for settings.

        Args:
            settings: prefix and address.
        """
        address = settings.redis
        return cls(settings.key_prefix, address.database, address.kind == "cluster")

    def channel(self, channel: str) -> tuple[str, str, str, str]:
        """Return state, log, snapshot and ids of a channel: ``KEYS[1..4]`` of each script.

        Args:
            channel: the channel.
        """
        return _of_channel(self.prefix, channel)

    @property
    def all_states(self) -> str:
        """Pattern of the states of all channels."""
        return f"{self.prefix}:{{*}}:state"

    def channel_of_state(self, state: str) -> str:
        """Return the channel of a state; the reverse of ``channel``.

        Args:
            state: the key of the state.
        """
        return state[len(self.prefix) + 2 : -7]  # 7: as long as "}:state"

    def operation(self, channel: str, operation: str) -> tuple[str, str, str]:
        """Return counts, tasks and leases of an operation: ``KEYS[5..7]`` of ``_operation.lua``.

        Args:
            channel: the user's channel.
            operation: the operation's id.
        """
        stem = f"{self.prefix}:{{{channel}}}:operation:{operation}"
        return stem, f"{stem}:tasks", f"{stem}:leases"

    def operations(self, channel: str) -> str:
        """Return the index of a channel's operations, ordered by their first report.

        Args:
            channel: the user's channel.
        """
        return f"{self.prefix}:{{{channel}}}:operations"

    @property
    def leases(self) -> str:
        """Index of operations with running tasks, as ``channel operation``, ordered by the next
        check of leases.
        """
        return f"{self.prefix}:leases"

    @property
    def cancelled(self) -> str:
        """Index of cancelled operations, as ``channel operation``, ordered by the time of the
        cancellation.
        """
        return f"{self.prefix}:cancelled"

    def outbox(self, worker: str) -> str:
        """Return the key with the outbox statistics of a worker's processes.

        Args:
            worker: the worker's name.
        """
        return f"{self.prefix}:outbox:{worker}"

    def pending(self, channel: str) -> tuple[str, ...]:
        """Return pending, the lists of its three lanes, dead, the list of dead ids, acked and
        tombstones: ``KEYS[5..12]`` of ``_entries.lua``.

        Args:
            channel: the user's channel.
        """
        stem = f"{self.prefix}:{{{channel}}}:"
        pending, dead = f"{stem}pending", f"{stem}dead"
        lanes = (f"{pending}:{lane}:ids" for lane in LANES)
        return (pending, *lanes, dead, f"{dead}:ids", f"{stem}acked", f"{stem}tombstones")

    def swept(self, channel: str) -> str:
        """Return the key with the highest fencing token of the channel's sweepers.

        Args:
            channel: the channel.
        """
        return f"{self.prefix}:{{{channel}}}:swept"

    @property
    def index(self) -> str:
        """Index of channels with pending events or dead letters, ordered by the next sweep."""
        return f"{self.prefix}:{{index}}" if self.cluster else f"{self.prefix}:letters"

    @property
    def totals(self) -> str:
        """Numbers of pending events and dead letters of all channels, as of the last sweeps."""
        return f"{self.index}:totals"

    @property
    def oldest(self) -> str:
        """Index of channels with dead letters, ordered by the death of the oldest one."""
        return f"{self.index}:dead"

    @property
    def sweeper(self) -> tuple[str, str]:
        """The sweeper's lease, and the fencing token that grows with each lease."""
        return f"{self.prefix}:sweeper", f"{self.prefix}:sweeper:fence"

    @property
    def revocations(self) -> tuple[str, str, str]:
        """Entries, numbers of their changes, and their ends: ``KEYS[1..3]`` of ``_revocations.lua``."""
        stem = f"{self.prefix}:{{revocations}}"
        return stem, f"{stem}:changes", f"{stem}:expiry"

    def tickets(self, user: str) -> str:
        """Return the key that counts the tickets of a user.

        Args:
            user: the user's id.
        """
        return f"{self.prefix}:tickets:{user}"

    def ticket(self, digest: str) -> str:
        """Return the key of a ticket.

        Args:
            digest: names the ticket.
        """
        return f"{self.prefix}:ticket:{digest}"

    @property
    def revoked(self) -> str:
        """The pub/sub channel that announces each new revocation to gateways."""
        return f"{self.prefix}:{{revocations}}:changed{self._of_database}"

    @property
    def gateways(self) -> str:
        """The gateways that run, as ``format instance``, ordered by the time until which that holds."""
        return f"{self.prefix}:gateways"

    @property
    def instances(self) -> tuple[str, str]:
        """The leases of the gateway instances, and what each says of itself."""
        stem = f"{self.prefix}:{{instances}}"
        return stem, f"{stem}:records"

    def control(self, life: str) -> str:
        """Return the pub/sub channel of the messages for a gateway process.

        Args:
            life: the process.
        """
        return f"{self.prefix}:control:{life}{self._of_database}"

    @property
    def timeline(self) -> tuple[str, str]:
        """The timeline of the server's data, and the processes that can state whether it is complete. In a cluster:
        the registry of all timelines.
        """
        stem = f"{self.prefix}:{{timeline}}"
        return stem, f"{stem}:voters"

    def mark(self, tag: str, process: str) -> str:
        """Return the key that a process writes at one shard of a cluster, to prove what it wrote before.

        Args:
            tag: a hash tag whose slot the shard has.
            process: the process.
        """
        return f"{self.prefix}:{{{tag}}}:mark:{process}"

    @property
    def canary(self) -> str:
        """The pub/sub channel through which each instance receives its own canaries."""
        return f"{self.prefix}:probe{self._of_database}"

    @property
    def audit(self) -> str:
        """The stream of what operators did."""
        return f"{self.prefix}:audit"

    @property
    def durable(self) -> str:
        """The key that a publisher writes before it waits for the replicas."""
        return f"{self.prefix}:durable"

    def durable_at(self, tag: str) -> str:
        """Return the key that a publisher writes at one shard of a cluster before it waits for its replicas.

        Args:
            tag: a hash tag whose slot the shard has.
        """
        return f"{self.prefix}:{{{tag}}}:durable"

    def probe(self, instance: str) -> str:
        """Return the key that an instance writes to check that Redis takes writes.

        Args:
            instance: the instance's name.
        """
        return f"{self.prefix}:probe:{instance}"

    def live(self, channel: str) -> str:
        """Return the channel's pub/sub channel.

        Args:
            channel: the channel.
        """
        return f"{self.prefix}:{{{channel}}}:live{self._of_database}"

    def channel_of_live(self, live: bytes) -> str:
        """Return the channel of a pub/sub channel; the reverse of ``live``.

        Args:
            live: the pub/sub channel, as Redis sends it.
        """
        return live[len(self.prefix) + 2 : -6 - len(self._of_database)].decode()  # 6: as long as "}:live"

    @property
    def _of_database(self) -> str:
        return f":{self.database}" if self.database else ""


@lru_cache(maxsize=8192)
def _of_channel(prefix: str, channel: str) -> tuple[str, str, str, str]:
    # Cached: each batch of each channel needs these names, and to format them is the only work.
    stem = f"{prefix}:{{{channel}}}:"
    return f"{stem}state", f"{stem}log", f"{stem}snapshot", f"{stem}ids"
