"""The in-process transport: the same three ports without a server, for tests and for a process of its own.

It keeps what Redis would keep, by the same rules (the contract tests hold the two against each other), and forgets
it with the process. Thread-safe: workers' outbox threads publish, an event loop reads and listens.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from eventbus.cursor import BEGINNING, Position
from eventbus.emission import Emission, Receipt
from eventbus.history import History, LogEntry, Page
from eventbus.letters import DeathReason, Due, Owed, Standing, read_standing
from eventbus.memoryletters import Lists
from eventbus.memoryoperations import describe, newest
from eventbus.operation import telling
from eventbus.operations import OperationInfo
from eventbus.policy import Keep, lane_number
from eventbus.settings import BusSettings
from eventbus.tally import Counts, OperationState, Tally, Told
from eventbus.topics import channel_of, check_id, user_channel
from eventbus.transport import Listener, Published, Request, Telling, Write
from eventbus.wire import join_records, parse_record, routing_header

__all__ = [
    "MemoryBroker",
    "MemoryLetters",
    "MemoryOperations",
    "MemoryPublisher",
    "MemoryReader",
    "MemorySubscriber",
]


@dataclass(slots=True)
class _Channel:
    epoch: str
    offset: int = 0
    logged: int = 0
    log: list[tuple[int, int, bytes]] = field(default_factory=list)
    snapshot: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    ids: OrderedDict[str, int] = field(default_factory=OrderedDict)
    operations: dict[str, Tally] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    lists: Lists | None = None


class MemoryBroker:
    """What the server is to Redis: channels, and who listens."""

    def __init__(self, settings: BusSettings | None = None) -> None:
        self._settings = settings or BusSettings(redis_url="memory://")
        self._lock = threading.Lock()
        self._channels: dict[str, _Channel] = {}
        self._listening: dict[str, set[MemorySubscriber]] = {}

    def carry_out(self, request: Request) -> Published:
        """Do what ``publish.lua`` or ``advance.lua`` would, in one step."""
        with self._lock:
            channel = self._channels.setdefault(request.channel, _Channel(secrets.token_hex(8)))
            before = channel.offset
            records: list[bytes] = []
            counts = None
            if isinstance(request, Write):
                offsets = [self._append(channel, emission, records) for emission in request.emissions]
            else:
                offsets = []
                tally = channel.operations.setdefault(request.operation, Tally())
                words = tally.advance(request.marks, _now_ms())
                self._tell(channel, request.channel, request.operation, request.telling, words, records)
                counts = tally.counts()
            pruned = self._prune(channel)
            receivers = self._deliver(request.channel, channel, before, records)
            return Published(Position(channel.epoch, channel.offset), offsets, receivers, pruned, counts)

    def read(self, name: str, after: int | None) -> History:
        """Do what ``read.lua`` would."""
        with self._lock:
            channel = self._channels.get(name)
            if channel is None:
                return History(Position("", 0), 0, (), (), owed=False)
            log = [
                LogEntry(previous, parse_record(*record.split(b"\n", 1)))
                for offset, previous, record in channel.log
                if after is not None and offset > after
            ]
            states = [parse_record(*record.split(b"\n", 1)) for _, record in sorted(channel.snapshot.values())]
            owed = channel.lists is not None and bool(channel.lists.pending)
            return History(Position(channel.epoch, channel.offset), channel.logged, log, states, owed=owed)

    def operations(self, name: str, limit: int, states: Sequence[OperationState]) -> list[OperationInfo]:
        """Do what ``operations.lua`` would."""
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
            words = channel.operations[op].cancel(_now_ms())
            self._tell(channel, name, op, telling(""), words, records)
            self._deliver(name, channel, before, records)

    def owed(self, name: str) -> Owed:
        """Do what ``drain.lua`` would."""
        with self._lock:
            channel = self._channels.get(name)
            if channel is None or channel.lists is None:
                return Owed(BEGINNING if channel is None else Position(channel.epoch, channel.offset), (), more=False)
            records = [parse_record(*record.split(b"\n", 1)) for record in channel.lists.drain(_now_ms())]
            return Owed(Position(channel.epoch, channel.offset), records, more=False)

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

    def again(self, name: str, ids: Sequence[str]) -> Due:
        """Do what ``again.lua`` would."""
        with self._lock:
            channel = self._channels.get(name)
            if channel is None or channel.lists is None:
                return Due([0] * len(ids), 0)
            due, records, buried = channel.lists.again(ids, _now_ms())
            if records:
                payload = b"\n".join((b"again " + channel.epoch.encode(), *records))
                for listener in list(self._listening.get(name, ())):
                    listener.deliver(name, payload)
            return Due(due, buried)

    def bury(self, name: str, id_: str, reason: str, content: bytes) -> bool:
        """Do what ``bury.lua`` would."""
        with self._lock:
            channel = self._channels.setdefault(name, _Channel(secrets.token_hex(8)))
            return self._lists(channel).bury(id_, reason, content)

    def dead(self, name: str) -> dict[str, str]:
        """Ids of the dead letters of a channel, with the reason: for tests."""
        with self._lock:
            channel = self._channels.get(name)
            dead = {} if channel is None or channel.lists is None else channel.lists.dead
            return {id_: reason for id_, (reason, _) in dead.items()}

    def standing(self, name: str, id_: str) -> tuple[Standing, str]:
        """What has become of an event that is owed."""
        with self._lock:
            channel = self._channels.get(name)
            if channel is None or channel.lists is None:
                return "unknown", ""
            dead = channel.lists.dead.get(id_)
            return read_standing(
                acked=id_ in channel.lists.acked,
                dead=None if dead is None else dead[0].encode(),
                pending=id_ in channel.lists.pending,
            )

    def _lists(self, channel: _Channel) -> Lists:
        if channel.lists is None:
            channel.lists = Lists(self._settings)
        return channel.lists

    def listen(self, channel: str, subscriber: MemorySubscriber, on: bool) -> None:
        """Begin or end handing publications of a channel to a subscriber."""
        with self._lock:
            (set.add if on else set.discard)(self._listening.setdefault(channel, set()), subscriber)

    def forget(self) -> None:
        """Lose all data, as a Redis that restarts empty: for tests."""
        with self._lock:
            self._channels.clear()

    def _deliver(self, name: str, channel: _Channel, before: int, records: Sequence[bytes]) -> int:
        """Hand records to whoever listens; how many that are."""
        listeners = list(self._listening.get(name, ())) if records else []
        payload = join_records(channel.epoch, before, records)
        for listener in listeners:
            listener.deliver(name, payload)
        return len(listeners)

    def _tell(
        self,
        channel: _Channel,
        name: str,
        operation: str,
        telling: Telling,
        words: Sequence[tuple[Told, Counts]],
        records: list[bytes],
    ) -> None:
        """What ``operation.lua`` says of changes."""
        channel.labels[operation] = telling.label or channel.labels.get(operation, "")
        tally = channel.operations[operation]
        topic = f"{name}:operation:{operation}"
        facts: list[tuple[str, str]] = [("task.failed", members) for members in tally.failures]
        tally.failures.clear()
        facts += [
            (f"operation.{word}", _counted(operation, channel.labels[operation], counts)) for word, counts in words
        ]
        for number, (type_, data) in enumerate(facts, 1):
            self._append(channel, _word(type_, topic, telling, number, data), records)

    def _append(self, channel: _Channel, emission: Emission, records: list[bytes]) -> int:
        known = channel.ids.get(emission.id)
        if known is not None:
            return -known
        channel.offset += 1
        offset = channel.offset
        record = b'%d %b\n{"offset":%d,%b' % (offset, emission.header.encode(), offset, emission.tail)
        if emission.keep == "log":
            channel.log.append((offset, channel.logged, record))
            channel.logged = offset
            del channel.log[: -self._settings.log_limit]
        elif emission.keep == "latest":
            channel.snapshot[emission.key or ""] = (offset, record)
        if emission.owed:
            self._lists(channel).owe(emission.id, offset, emission.lane, emission.owed, record, _now_ms())
        channel.ids[emission.id] = offset
        while len(channel.ids) > self._settings.dedup_window:
            channel.ids.popitem(last=False)
        records.append(record)
        return offset

    def _prune(self, channel: _Channel) -> int:
        limit = self._settings.snapshot_limit
        if len(channel.snapshot) <= limit + limit / 10:
            return 0
        newest = sorted(channel.snapshot.items(), key=lambda entry: -entry[1][0])[:limit]
        pruned = len(channel.snapshot) - len(newest)
        channel.snapshot = dict(newest)
        return pruned


def _first_page(history: History, page: Page) -> History:
    size, log = page.bytes, []
    for entry in history.log[: page.entries]:
        if size <= 0:
            break
        log.append(entry)
        # As it is kept: with its header.
        size -= entry.record.size
    return replace(history, log=log, more=len(log) < len(history.log))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


_URGENT = frozenset({"operation.lost", "operation.succeeded", "operation.failed", "operation.cancelled", "task.failed"})


def _counted(operation: str, label: str, counts: Counts) -> str:
    facts = {"operation": operation, "label": label, "state": counts.state}
    numbers = {"done": counts.done, "failed": counts.failed, "total": counts.total}
    return json.dumps({**facts, **numbers}, ensure_ascii=False, separators=(",", ":"))[1:-1]


def _word(type_: str, topic: str, telling: Telling, number: int, data: str) -> Emission:
    """An event that tells a change, as ``operation.lua`` writes it."""
    keep: Keep = "latest" if type_ == "operation.progress" else "log"
    lane = lane_number("high" if type_ in _URGENT else "normal")
    key = f"{topic}/{type_}" if keep == "latest" else None
    header = routing_header(
        lane=lane, keep=keep, expires_ms=0, emitted_us=telling.emitted, type_=type_, topic=topic, key=key
    )
    id_ = f"{telling.id}.{number}"
    time_ = telling.emitted // 1000
    tail = f'"id":"{id_}","type":"{type_}","topic":"{topic}","time":{time_},"data":{{{data}}}}}'.encode()
    return Emission(channel_of(topic), topic, lane, keep, key, 0, 0.0, header, tail, Receipt(id_))


class MemoryPublisher:
    """``Publisher`` over a broker in this process."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    def publish(self, requests: Sequence[Request]) -> list[Published | Exception]:
        """See ``Publisher``."""
        return [self._broker.carry_out(request) for request in requests]

    def position(self, channel: str) -> Position:
        """See ``Publisher``."""
        return self._broker.read(channel, None).position

    def standing(self, channel: str, id_: str) -> tuple[Standing, str]:
        """See ``Publisher``."""
        return self._broker.standing(channel, id_)

    def close(self) -> None:
        """See ``Publisher``."""


class MemoryReader:
    """``Reader`` over a broker in this process."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    async def read(self, channel: str, after: int | None, page: Page | None = None) -> History:
        """See ``Reader``."""
        history = self._broker.read(channel, after)
        return history if page is None else _first_page(history, page)

    async def positions(self, channels: Sequence[str]) -> list[Position]:
        """See ``Reader``."""
        return [self._broker.read(channel, None).position for channel in channels]

    async def aclose(self) -> None:
        """See ``Reader``."""


class MemoryLetters:
    """``Letters`` over a broker in this process."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    async def owed(self, channel: str) -> Owed:
        """See ``Letters``."""
        return self._broker.owed(channel)

    async def ack(self, channel: str, ids: Sequence[str]) -> int:
        """See ``Letters``."""
        return self._broker.ack(channel, ids)

    async def ack_upto(self, channel: str, position: Position) -> int:
        """See ``Letters``."""
        return self._broker.ack_upto(channel, position)

    async def again(self, channel: str, ids: Sequence[str]) -> Due:
        """See ``Letters``."""
        return self._broker.again(channel, ids)

    async def bury(self, channel: str, id: str, reason: DeathReason, content: bytes) -> bool:
        """See ``Letters``."""
        return self._broker.bury(channel, id, reason, content)


class MemoryOperations:
    """``OperationBook`` over a broker in this process."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    async def of(self, user: str, limit: int, states: Sequence[OperationState] = ()) -> Sequence[OperationInfo]:
        """See ``OperationBook``."""
        return self._broker.operations(user_channel(user), limit, states)

    async def get(self, user: str, op: str) -> OperationInfo | None:
        """See ``OperationBook``."""
        return self._broker.operation(user_channel(user), check_id(op, "op"))

    async def cancel(self, user: str, op: str) -> OperationInfo | None:
        """See ``OperationBook``."""
        self._broker.cancel(user_channel(user), check_id(op, "op"))
        return await self.get(user, op)


class MemorySubscriber:
    """``Subscriber`` over a broker in this process."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._channels: set[str] = set()
        self._listener: Listener | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self, listener: Listener) -> None:
        """See ``Subscriber``."""
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        listener.restored()

    async def subscribe(self, channel: str) -> None:
        """See ``Subscriber``."""
        self._channels.add(channel)
        self._broker.listen(channel, self, on=True)

    def unsubscribe(self, channel: str) -> None:
        """See ``Subscriber``."""
        self._channels.discard(channel)
        self._broker.listen(channel, self, on=False)

    def reconnect(self, reason: str) -> None:
        """See ``Subscriber``: there is no connection."""

    async def aclose(self) -> None:
        """See ``Subscriber``."""
        for channel in list(self._channels):
            self.unsubscribe(channel)
        self._loop = None

    def deliver(self, channel: str, payload: bytes) -> None:
        """Called by the broker, in the publisher's thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._hand_over, channel, payload)

    def _hand_over(self, channel: str, payload: bytes) -> None:
        if self._listener is not None and channel in self._channels:
            self._listener.received(channel, payload)
            self._listener.turn_ended()
