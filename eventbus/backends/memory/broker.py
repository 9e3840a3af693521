"""The in-process broker: each method is one step, like a script in Redis.

It is thread-safe: outbox threads publish, an event loop reads and listens.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping, Sequence
from typing import Protocol

from eventbus.backends.memory.channel import MemoryChannel
from eventbus.backends.memory.operations import describe, newest
from eventbus.backends.pending import DeliveryStatus, PendingBatch, RedeliveryResult, read_delivery_status
from eventbus.backends.ports import Published, Request, Write
from eventbus.backends.revocations import Revocation
from eventbus.clock import steady_ms
from eventbus.operations.changes import event_stamp
from eventbus.operations.state import OperationState
from eventbus.operations.state_machine import OperationStateMachine
from eventbus.operations.store import OperationInfo
from eventbus.protocol.cursor import BEGINNING, Position
from eventbus.protocol.history import History, LogEntry
from eventbus.protocol.records import join_records, parse_record
from eventbus.settings import BusSettings

__all__ = ["MemoryBroker", "MemoryListener"]


class MemoryListener(Protocol):
    """Receives publications of the broker."""

    def deliver(self, channel: str, payload: bytes) -> None:
        """Take a publication. The publisher's thread calls it under the broker's lock, so it must
        return fast.

        Args:
            channel: the channel.
            payload: the publication.
        """


class MemoryBroker:
    """Keeps all channels and their listeners.

    Methods named like a script do what the script does in Redis.

    Args:
        settings: limits; the default reads the environment.

    Attributes:
        revocations: what was revoked, by name of the entry; for ``MemoryRevocations``.
    """

    def __init__(self, settings: BusSettings | None = None) -> None:
        self._settings = settings or BusSettings(redis_url="memory://")
        self.revocations: dict[str, Revocation] = {}
        self._lock = threading.Lock()
        self._channels: dict[str, MemoryChannel] = {}
        self._listeners: dict[str, set[MemoryListener]] = {}

    @property
    def settings(self) -> BusSettings:
        """The limits."""
        return self._settings

    def carry_out(self, request: Request) -> Published:
        """Carry out a request in one step, like ``publish.lua`` or ``record.lua``.

        Args:
            request: the request.

        Returns:
            Its result.
        """
        with self._lock:
            channel, now = self._channel(request.channel), steady_ms()
            before = channel.offset
            records: list[bytes] = []
            counts = None
            if isinstance(request, Write):
                offsets = [channel.append(emission, records, now) for emission in request.emissions]
            else:
                offsets = []
                machine = channel.operations.setdefault(request.operation, OperationStateMachine())
                changes = machine.apply(request.transitions, now)
                channel.report(request.operation, request.stamp, changes, records, now)
                counts = machine.counts()
            pruned = channel.prune()
            receivers = self._deliver(request.channel, channel, before, records)
            return Published(channel.position, offsets, receivers, pruned, counts)

    def read(self, name: str, after: int | None) -> History:
        """Read a channel, like ``read.lua``.

        Args:
            name: the channel.
            after: return log entries above this offset; None: no log entries.

        Returns:
            The history.
        """
        with self._lock:
            channel = self._channels.get(name)
            if channel is None:
                return History(Position("", 0), 0, (), (), has_pending=False)
            log = [
                LogEntry(previous, parse_record(*record.split(b"\n", 1)))
                for offset, previous, record in channel.log
                if after is not None and offset > after
            ]
            states = [parse_record(*record.split(b"\n", 1)) for _, record in sorted(channel.snapshot.values())]
            has_pending = channel.lists is not None and bool(channel.lists.pending)
            return History(channel.position, channel.logged, log, states, has_pending=has_pending, lossy=channel.lossy)

    def fork(self, name: str, epoch: str) -> bool:
        """End an epoch, like ``fork.lua``.

        Args:
            name: the channel.
            epoch: the epoch to end.

        Returns:
            False if the channel has another epoch already.
        """
        with self._lock:
            channel = self._channels.get(name)
            return channel is not None and channel.fork(epoch)

    def operations(self, name: str, limit: int, states: Sequence[OperationState]) -> list[OperationInfo]:
        """List operations of a channel, like ``list.lua``.

        Args:
            name: the channel.
            limit: maximum number of operations.
            states: only operations in one of these states; empty: in any state.

        Returns:
            The operations, the newest first.
        """
        with self._lock:
            channel = self._channels.get(name)
            if channel is None:
                return []
            kept = dict(list(channel.operations.items())[-self._settings.operations_limit :])
            return newest(name, kept, channel.labels, limit, states)

    def operation(self, name: str, op: str) -> OperationInfo | None:
        """Describe one operation, like ``describe.lua``.

        Args:
            name: the channel.
            op: the operation's id.

        Returns:
            The operation; None if it is unknown.
        """
        with self._lock:
            channel = self._channels.get(name)
            if channel is None or op not in channel.operations:
                return None
            return describe(name, op, channel.operations[op], channel.labels.get(op, ""), self._settings.running_shown)

    def cancel(self, name: str, op: str) -> None:
        """Cancel an operation, like ``cancel.lua``.

        Args:
            name: the channel.
            op: the operation's id.
        """
        with self._lock:
            channel = self._channels.get(name)
            if channel is None or op not in channel.operations:
                return
            before = channel.offset
            records: list[bytes] = []
            now = steady_ms()
            changes = channel.operations[op].cancel(now)
            channel.report(op, event_stamp(""), changes, records, now)
            self._deliver(name, channel, before, records)

    def fetch(self, name: str) -> PendingBatch:
        """Read a user's pending events, like ``fetch.lua``.

        Args:
            name: the channel.

        Returns:
            All pending events.
        """
        with self._lock:
            channel = self._channels.get(name)
            if channel is None or channel.lists is None:
                return PendingBatch(BEGINNING if channel is None else channel.position, (), more=False)
            records = [parse_record(*record.split(b"\n", 1)) for record in channel.lists.fetch(steady_ms())]
            return PendingBatch(channel.position, records, more=False)

    def ack(self, name: str, ids: Sequence[str]) -> int:
        """Acknowledge events by id, like ``ack.lua``.

        Args:
            name: the channel.
            ids: ids of the events.

        Returns:
            The number of them that were pending.
        """
        with self._lock:
            channel = self._channels.get(name)
            return channel.lists.ack(ids) if channel is not None and channel.lists is not None else 0

    def ack_upto(self, name: str, position: Position) -> int:
        """Acknowledge all events up to a position, like ``ack.lua``.

        Args:
            name: the channel.
            position: the last acknowledged position.

        Returns:
            The number of them that were pending.
        """
        with self._lock:
            channel = self._channels.get(name)
            if channel is None or channel.lists is None or channel.epoch != position.epoch:
                return 0
            return channel.lists.ack_upto(position.offset)

    def redeliver(self, name: str, ids: Sequence[str]) -> RedeliveryResult:
        """Publish events again that are due, like ``redeliver.lua``.

        Args:
            name: the channel.
            ids: ids of the events.

        Returns:
            When each is due next.
        """
        with self._lock:
            channel = self._channels.get(name)
            if channel is None or channel.lists is None:
                return RedeliveryResult([0] * len(ids), 0)
            due, records, dead_lettered = channel.lists.redeliver(ids, steady_ms())
            if records:
                payload = b"\n".join((b"again " + channel.epoch.encode(), *records))
                for listener in list(self._listeners.get(name, ())):
                    listener.deliver(name, payload)
            return RedeliveryResult(due, dead_lettered)

    def dead_letter(self, name: str, id_: str, reason: str, content: bytes) -> bool:
        """Keep an event that cannot be delivered, like ``dead_letter.lua``.

        Args:
            name: the channel.
            id_: the event's id, or one made from the bytes.
            reason: why it cannot be delivered.
            content: the record, or the bytes that could be read.

        Returns:
            False if the dead letter exists already.
        """
        with self._lock:
            return self._channel(name).pending_lists().dead_letter(id_, reason, content)

    def dead(self, name: str) -> dict[str, str]:
        """Return id and reason of a channel's dead letters, for tests.

        Args:
            name: the channel.
        """
        with self._lock:
            channel = self._channels.get(name)
            dead = {} if channel is None or channel.lists is None else channel.lists.dead
            return {id_: reason for id_, (reason, _) in dead.items()}

    def delivery_status(self, name: str, id_: str) -> tuple[DeliveryStatus, str]:
        """Return the status of an event that needs an acknowledgement.

        Args:
            name: the channel.
            id_: the event's id.

        Returns:
            The status, and the reason of a dead letter, else an empty text.
        """
        with self._lock:
            channel = self._channels.get(name)
            if channel is None or channel.lists is None:
                return "unknown", ""
            dead = channel.lists.dead.get(id_)
            return read_delivery_status(
                acked=id_ in channel.lists.acked,
                dead=None if dead is None else dead[0].encode(),
                pending=id_ in channel.lists.pending,
            )

    def listen(self, channel: str, listener: MemoryListener, on: bool) -> None:
        """Add or remove a listener.

        Args:
            channel: the channel.
            listener: receives its publications.
            on: True adds it, False removes it.
        """
        with self._lock:
            (set.add if on else set.discard)(self._listeners.setdefault(channel, set()), listener)

    def forget(self) -> None:
        """Lose all data, like a Redis that restarts empty, for tests."""
        with self._lock:
            self._channels.clear()

    def copy_data(self) -> dict[str, MemoryChannel]:
        """Return a copy of all data, like an RDB file, for tests."""
        with self._lock:
            return copy.deepcopy(self._channels)

    def go_back(self, data: Mapping[str, MemoryChannel]) -> None:
        """Replace all data, like a Redis that restarts with an older file, for tests.

        Args:
            data: a result of ``copy_data``.
        """
        with self._lock:
            self._channels = copy.deepcopy(dict(data))

    def _channel(self, name: str) -> MemoryChannel:
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = MemoryChannel(name, self._settings)
        return channel

    def _deliver(self, name: str, channel: MemoryChannel, before: int, records: Sequence[bytes]) -> int:
        """Publish records. Returns the number of listeners."""
        listeners = list(self._listeners.get(name, ())) if records else []
        payload = join_records(channel.epoch, before, records)
        for listener in listeners:
            listener.deliver(name, payload)
        return len(listeners)
