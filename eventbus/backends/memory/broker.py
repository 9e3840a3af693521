"""The broker of the in-process transport: what the server is to Redis, each verb in one step.

Thread-safe: workers' outbox threads publish, an event loop reads and listens.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

from eventbus.backends.memory.channel import MemoryChannel
from eventbus.backends.memory.operations import describe, newest
from eventbus.backends.pending import DeliveryStatus, PendingBatch, RedeliveryResult, read_delivery_status
from eventbus.backends.ports import Published, Request, Write
from eventbus.clock import now_ms
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
    """Who listens."""

    def deliver(self, channel: str, payload: bytes) -> None:
        """Called in the publisher's thread, under the broker's lock: do no more than note it."""


class MemoryBroker:
    """What the server is to Redis: channels, and who listens."""

    def __init__(self, settings: BusSettings | None = None) -> None:
        self._settings = settings or BusSettings(redis_url="memory://")
        self._lock = threading.Lock()
        self._channels: dict[str, MemoryChannel] = {}
        self._listening: dict[str, set[MemoryListener]] = {}

    def carry_out(self, request: Request) -> Published:
        """Do what ``publish.lua`` or ``record.lua`` would, in one step."""
        with self._lock:
            channel, now = self._channel(request.channel), now_ms()
            before = channel.offset
            records: list[bytes] = []
            counts = None
            if isinstance(request, Write):
                offsets = [channel.append(emission, records, now) for emission in request.emissions]
            else:
                offsets = []
                machine = channel.operations.setdefault(request.operation, OperationStateMachine())
                words = machine.apply(request.transitions, now)
                channel.tell(request.operation, request.stamp, words, records, now)
                counts = machine.counts()
            pruned = channel.prune()
            receivers = self._deliver(request.channel, channel, before, records)
            return Published(channel.position, offsets, receivers, pruned, counts)

    def read(self, name: str, after: int | None) -> History:
        """Do what ``read.lua`` would."""
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
            owed = channel.lists is not None and bool(channel.lists.pending)
            return History(channel.position, channel.logged, log, states, has_pending=owed)

    def operations(self, name: str, limit: int, states: Sequence[OperationState]) -> list[OperationInfo]:
        """Do what ``list.lua`` would."""
        with self._lock:
            channel = self._channels.get(name)
            if channel is None:
                return []
            kept = dict(list(channel.operations.items())[-self._settings.operations_limit :])
            return newest(name, kept, channel.labels, limit, states)

    def operation(self, name: str, op: str) -> OperationInfo | None:
        """Do what ``describe.lua`` would."""
        with self._lock:
            channel = self._channels.get(name)
            if channel is None or op not in channel.operations:
                return None
            return describe(name, op, channel.operations[op], channel.labels.get(op, ""), self._settings.running_shown)

    def cancel(self, name: str, op: str) -> None:
        """Do what ``cancel.lua`` would."""
        with self._lock:
            channel = self._channels.get(name)
            if channel is None or op not in channel.operations:
                return
            before = channel.offset
            records: list[bytes] = []
            now = now_ms()
            words = channel.operations[op].cancel(now)
            channel.tell(op, event_stamp(""), words, records, now)
            self._deliver(name, channel, before, records)

    def fetch(self, name: str) -> PendingBatch:
        """Do what ``fetch.lua`` would."""
        with self._lock:
            channel = self._channels.get(name)
            if channel is None or channel.lists is None:
                return PendingBatch(BEGINNING if channel is None else channel.position, (), more=False)
            records = [parse_record(*record.split(b"\n", 1)) for record in channel.lists.fetch(now_ms())]
            return PendingBatch(channel.position, records, more=False)

    def ack(self, name: str, ids: Sequence[str]) -> int:
        """Do what ``ack.lua`` would with ids."""
        with self._lock:
            channel = self._channels.get(name)
            return channel.lists.ack(ids) if channel is not None and channel.lists is not None else 0

    def ack_upto(self, name: str, position: Position) -> int:
        """Do what ``ack.lua`` would with a position."""
        with self._lock:
            channel = self._channels.get(name)
            if channel is None or channel.lists is None or channel.epoch != position.epoch:
                return 0
            return channel.lists.ack_upto(position.offset)

    def redeliver(self, name: str, ids: Sequence[str]) -> RedeliveryResult:
        """Do what ``redeliver.lua`` would."""
        with self._lock:
            channel = self._channels.get(name)
            if channel is None or channel.lists is None:
                return RedeliveryResult([0] * len(ids), 0)
            due, records, dead_lettered = channel.lists.redeliver(ids, now_ms())
            if records:
                payload = b"\n".join((b"again " + channel.epoch.encode(), *records))
                for ear in list(self._listening.get(name, ())):
                    ear.deliver(name, payload)
            return RedeliveryResult(due, dead_lettered)

    def dead_letter(self, name: str, id_: str, reason: str, content: bytes) -> bool:
        """Do what ``dead_letter.lua`` would."""
        with self._lock:
            return self._channel(name).pending_lists().dead_letter(id_, reason, content)

    def dead(self, name: str) -> dict[str, str]:
        """Ids of the dead letters of a channel, with the reason: for tests."""
        with self._lock:
            channel = self._channels.get(name)
            dead = {} if channel is None or channel.lists is None else channel.lists.dead
            return {id_: reason for id_, (reason, _) in dead.items()}

    def delivery_status(self, name: str, id_: str) -> tuple[DeliveryStatus, str]:
        """What has become of an event that is owed."""
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

    def listen(self, channel: str, ear: MemoryListener, on: bool) -> None:
        """Begin or end handing publications of a channel to somebody."""
        with self._lock:
            (set.add if on else set.discard)(self._listening.setdefault(channel, set()), ear)

    def forget(self) -> None:
        """Lose all data, as a Redis that restarts empty: for tests."""
        with self._lock:
            self._channels.clear()

    def _channel(self, name: str) -> MemoryChannel:
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = MemoryChannel(name, self._settings)
        return channel

    def _deliver(self, name: str, channel: MemoryChannel, before: int, records: Sequence[bytes]) -> int:
        """Hand records to whoever listens; how many that are."""
        ears = list(self._listening.get(name, ())) if records else []
        payload = join_records(channel.epoch, before, records)
        for ear in ears:
            ear.deliver(name, payload)
        return len(ears)
