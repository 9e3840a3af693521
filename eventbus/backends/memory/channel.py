"""A channel of the in-process transport, by the rules of ``_channel.lua`` and ``_operation.lua``. No I/O, no clock."""

from __future__ import annotations

import json
import secrets
from collections import OrderedDict
from collections.abc import Sequence

from eventbus.backends.memory.pending import PendingLists
from eventbus.events.encoder import Emission
from eventbus.events.receipt import Receipt
from eventbus.operations.changes import EventStamp
from eventbus.operations.state import Counts, OperationEvent
from eventbus.operations.state_machine import OperationStateMachine
from eventbus.protocol.cursor import Position
from eventbus.protocol.policy import Keep, lane_number
from eventbus.protocol.records import routing_header
from eventbus.protocol.topics import channel_of
from eventbus.settings import BusSettings

__all__ = ["MemoryChannel"]

_URGENT = frozenset({"operation.lost", "operation.succeeded", "operation.failed", "operation.cancelled", "task.failed"})


class MemoryChannel:
    """What Redis keeps of one channel. What is appended is added to ``records`` as well: that is to be published.

    Attributes:
        log: offset, offset of the entry before it, and record.
        logged: offset of the newest entry of the log.
        snapshot: key -> offset and record of its newest state.
        operations: in the order in which they were first heard of; ``labels`` what they are called.
        lists: what its user is owed; None as long as that was never anything.
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

    @property
    def position(self) -> Position:
        """Epoch and offset."""
        return Position(self.epoch, self.offset)

    def pending_lists(self) -> PendingLists:
        """Its lists, from now on."""
        if self.lists is None:
            self.lists = PendingLists(self._settings)
        return self.lists

    def append(self, emission: Emission, records: list[bytes], now_ms: int) -> int:
        """Number and keep an event, and add it to ``records``. Its offset; negative if its id is known already."""
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
        if emission.ack_deadline:
            self.pending_lists().owe(emission.id, offset, emission.lane, emission.ack_deadline, record, now_ms)
        self._ids[emission.id] = offset
        while len(self._ids) > self._settings.dedup_window:
            self._ids.popitem(last=False)
        records.append(record)
        return offset

    def tell(
        self,
        operation: str,
        stamp: EventStamp,
        words: Sequence[tuple[OperationEvent, Counts]],
        records: list[bytes],
        now_ms: int,
    ) -> None:
        """Append what ``_operation.lua`` says of changes."""
        self.labels[operation] = stamp.label or self.labels.get(operation, "")
        machine = self.operations[operation]
        topic = f"{self._name}:operation:{operation}"
        facts: list[tuple[str, str]] = [("task.failed", members) for members in machine.failures]
        machine.failures.clear()
        facts += [(f"operation.{word}", _counted(operation, self.labels[operation], counts)) for word, counts in words]
        for number, (type_, data) in enumerate(facts, 1):
            self.append(_word(type_, topic, stamp, number, data), records, now_ms)

    def prune(self) -> int:
        """Let the oldest states go if there are too many; how many went."""
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


def _word(type_: str, topic: str, stamp: EventStamp, number: int, data: str) -> Emission:
    """An event that tells a change, as ``_operation.lua`` writes it."""
    keep: Keep = "latest" if type_ == "operation.progress" else "log"
    lane = lane_number("high" if type_ in _URGENT else "normal")
    key = f"{topic}/{type_}" if keep == "latest" else None
    header = routing_header(
        lane=lane, keep=keep, expires_ms=0, emitted_us=stamp.emitted, type_=type_, topic=topic, key=key
    )
    id_ = f"{stamp.id}.{number}"
    time_ = stamp.emitted // 1000
    tail = f'"id":"{id_}","type":"{type_}","topic":"{topic}","time":{time_},"data":{{{data}}}}}'.encode()
    return Emission(channel_of(topic), topic, lane, keep, key, 0, 0.0, header, tail, Receipt(id_))
