"""A channel in the process, by the rules of ``_channel.lua`` and ``_operation.lua``. No I/O, no
clock.
"""

from __future__ import annotations

import json
import secrets
from collections import OrderedDict
from collections.abc import Sequence

from eventbus.backends.memory.pending import PendingLists
from eventbus.events.encoder import IMMORTAL, Emission
from eventbus.events.receipt import Receipt
from eventbus.operations.changes import EVENT_POLICIES, EventStamp
from eventbus.operations.state import Counts, OperationEvent
from eventbus.operations.state_machine import OperationStateMachine
from eventbus.protocol.cursor import Position
from eventbus.protocol.policy import lane_number
from eventbus.protocol.records import routing_header
from eventbus.protocol.topics import channel_of
from eventbus.settings import BusSettings

__all__ = ["MemoryChannel"]


class MemoryChannel:
    """The data that Redis keeps of one channel. Appended records also go to ``records``, to be
    published.

    Args:
        name: the channel, such as ``user:42``.
        settings: limits.

    Attributes:
        epoch: the channel's epoch.
        offset: offset of the last event.
        log: offset, offset of the previous entry, and record.
        logged: offset of the newest entry of the log.
        snapshot: key -> offset and record of its newest state.
        operations: operation -> state, in the order of their first reports.
        labels: operation -> label.
        lists: pending events and dead letters; None before the first one.
    """

    def __init__(self, name: str, settings: BusSettings) -> None:
        self._name = name
        self._settings = settings
        self._ids: OrderedDict[str, int] = OrderedDict()
        self.epoch = secrets.token_hex(8)
        self.offset = 0
        self.logged = 0
        self.log: list[tuple[int, int, bytes]] = []
        self.snapshot: dict[str, tuple[int, bytes]] = {}
        self.operations: dict[str, OperationStateMachine] = {}
        self.labels: dict[str, str] = {}
        self.lists: PendingLists | None = None
        self.lossy = False

    @property
    def position(self) -> Position:
        """Epoch and offset of the channel's end."""
        return Position(self.epoch, self.offset)

    def pending_lists(self) -> PendingLists:
        """Return the lists; make them at the first call."""
        if self.lists is None:
            self.lists = PendingLists(self._settings)
        return self.lists

    def fork(self, epoch: str) -> bool:
        """Begin a new epoch. Offsets continue.

        Args:
            epoch: the epoch to end.

        Returns:
            False if it has ended already.
        """
        if epoch != self.epoch:
            return False
        self.epoch, self.lossy = secrets.token_hex(8), True
        return True

    def append(self, emission: Emission, records: list[bytes], now_ms: int) -> int:
        """Number and keep an event.

        Args:
            emission: the event.
            records: gets the record.
            now_ms: milliseconds since 1970.

        Returns:
            Its offset. A negative one means that the id was known and is minus the first event's
            offset.
        """
        known = self._ids.get(emission.id)
        if known is not None:
            return -known
        self.offset += 1
        offset = self.offset
        record = b'%d %b\n{"offset":%d,%b' % (offset, emission.header.encode(), offset, emission.tail)
        if emission.keep == "log":
            self.log.append((offset, self.logged, record))
            self.logged = offset
            del self.log[: -self._settings.log_limit]
        elif emission.keep == "latest":
            self.snapshot[emission.key or ""] = (offset, record)
        if emission.lifetime.ack_deadline_ms:
            deadline = emission.lifetime.ack_deadline_ms
            self.pending_lists().add(emission.id, offset, emission.lane, deadline, record, now_ms)
        self._ids[emission.id] = offset
        while len(self._ids) > self._settings.dedup_window:
            self._ids.popitem(last=False)
        records.append(record)
        return offset

    def report(
        self,
        operation: str,
        stamp: EventStamp,
        changes: Sequence[tuple[OperationEvent, Counts]],
        records: list[bytes],
        now_ms: int,
    ) -> None:
        """Append the events that report an operation's changes.

        Args:
            operation: the operation's id.
            stamp: id and time of the events.
            changes: the changes, each with the counts at its time.
            records: gets the records.
            now_ms: milliseconds since 1970.
        """
        self.labels[operation] = stamp.label or self.labels.get(operation, "")
        machine = self.operations[operation]
        topic = f"{self._name}:operation:{operation}"
        events: list[tuple[str, str]] = [("task.failed", members) for members in machine.failures]
        machine.failures.clear()
        label = self.labels[operation]
        events += [(f"operation.{change}", _counted(operation, label, counts)) for change, counts in changes]
        for number, (type_, data) in enumerate(events, 1):
            self.append(_emission(type_, topic, stamp, number, data), records, now_ms)

    def prune(self) -> int:
        """Drop the oldest states if there are too many.

        Returns:
            The number of dropped states.
        """
        limit = self._settings.snapshot_limit
        if len(self.snapshot) <= limit + limit / 10:
            return 0
        newest = sorted(self.snapshot.items(), key=lambda entry: -entry[1][0])[:limit]
        pruned = len(self.snapshot) - len(newest)
        self.snapshot = dict(newest)
        return pruned


def _counted(operation: str, label: str, counts: Counts) -> str:
    facts = {"operation": operation, "label": label, "state": counts.state}
    numbers = {"done": counts.done, "failed": counts.failed, "total": counts.total}
    return json.dumps({**facts, **numbers}, ensure_ascii=False, separators=(",", ":"))[1:-1]


def _emission(type_: str, topic: str, stamp: EventStamp, number: int, data: str) -> Emission:
    """Make an event that reports a change, with the bytes that ``_operation.lua`` writes."""
    policy = EVENT_POLICIES[type_]
    lane = lane_number(policy.lane)
    key = f"{topic}/{type_}" if policy.keep == "latest" else None
    header = routing_header(
        lane=lane, keep=policy.keep, expires_ms=0, emitted_us=stamp.emitted, type_=type_, topic=topic, key=key
    )
    id_ = f"{stamp.id}.{number}"
    time_ = stamp.emitted // 1000
    tail = f'"id":"{id_}","type":"{type_}","topic":"{topic}","time":{time_},"data":{{{data}}}}}'.encode()
    return Emission(
        channel=channel_of(topic),
        topic=topic,
        lane=lane,
        keep=policy.keep,
        key=key,
        lifetime=IMMORTAL,
        header=header,
        tail=tail,
        receipt=Receipt(id_),
        expires=0,
    )
