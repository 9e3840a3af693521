"""``emit``, ``broadcast`` and ``announce``: where an application hands its events over."""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import overload

from eventbus.backends.memory.adapters import MemoryBroker, MemoryPublisher
from eventbus.backends.ports import Publisher
from eventbus.backends.redis.publisher import RedisPublisher
from eventbus.errors import InvalidName, InvalidPayload, NoOperation
from eventbus.events.encoder import Emission, EmissionBuilder
from eventbus.events.event import Event
from eventbus.events.receipt import Receipt
from eventbus.operations.changes import event_stamp
from eventbus.operations.events import OperationRef, current_operation
from eventbus.operations.state import TaskTransition
from eventbus.outbox.confirmation import DeliveryConfirmation
from eventbus.outbox.entries import TransitionEntry
from eventbus.outbox.outbox import Outbox
from eventbus.protocol.cursor import Position
from eventbus.protocol.topics import broadcast_topic, channel_of, operation_topic, system_topic
from eventbus.settings import BusSettings

__all__ = [
    "Bus",
    "aannounce",
    "abroadcast",
    "aemit",
    "announce",
    "broadcast",
    "configure",
    "default_bus",
    "emit",
    "override_bus",
]


class Bus:
    """One process's way to Redis: validation, outbox, thread.

    The plain methods queue and return; the ``a…`` forms queue and wait, at most the flush budget, until Redis has it.
    Neither raises because Redis is away; both raise for a mistake in the call, before anything is sent.
    """

    def __init__(self, settings: BusSettings | None = None, *, broker: MemoryBroker | None = None) -> None:
        """``broker`` shares an in-process transport with others; without it the settings' ``redis_url`` decides."""
        self.settings = settings or BusSettings()
        if broker is None and self.settings.redis_url.startswith("memory:"):
            broker = MemoryBroker(self.settings)
        self.broker = broker
        self._builder = EmissionBuilder(self.settings)
        self.outbox = Outbox(self.settings, self.publisher)

    def publisher(self) -> Publisher:
        """A new blocking publisher of this bus's transport."""
        return RedisPublisher(self.settings) if self.broker is None else MemoryPublisher(self.broker)

    @overload
    def emit(self, payload: Event, /, *, id: str | None = None, strict: bool = False) -> Receipt: ...
    @overload
    def emit(
        self, user: str, op: str, payload: Event, /, *, id: str | None = None, strict: bool = False
    ) -> Receipt: ...
    def emit(self, *args: object, id: str | None = None, strict: bool = False) -> Receipt:
        """Tell a user something about an operation: ``emit(user, op, payload)``, or ``emit(payload)`` inside one.

        ``id`` makes it idempotent: an id that the channel knows is not published again. ``strict`` waits until Redis
        has it, at most ``strict_timeout``, and raises where the plain call would only count.

        Raises:
            InvalidEmission: ``field`` names what is wrong; nothing was sent.
            NoOperation: ``emit(payload)`` outside any operation.
            Unavailable, Refused, RateLimited: only if ``strict``.
        """
        return self.put(self.emission(args, id), strict=strict)

    @overload
    async def aemit(self, payload: Event, /, *, id: str | None = None, strict: bool = False) -> Receipt: ...
    @overload
    async def aemit(
        self, user: str, op: str, payload: Event, /, *, id: str | None = None, strict: bool = False
    ) -> Receipt: ...
    async def aemit(self, *args: object, id: str | None = None, strict: bool = False) -> Receipt:
        """``emit`` for async code; the receipt has the offset unless Redis was away."""
        return await self.aput(self.emission(args, id), strict=strict)

    def broadcast(
        self, collection: str, payload: Event, *, topic: str = "events", id: str | None = None, strict: bool = False
    ) -> Receipt:
        """Tell everybody who watches a collection. ``topic`` is relative to the collection. Raises as ``emit``."""
        return self.put(self._build(_broadcast_topic(collection, topic), payload, id), strict=strict)

    async def abroadcast(
        self, collection: str, payload: Event, *, topic: str = "events", id: str | None = None, strict: bool = False
    ) -> Receipt:
        """``broadcast`` for async code."""
        return await self.aput(self._build(_broadcast_topic(collection, topic), payload, id), strict=strict)

    def announce(
        self, payload: Event, *, topic: str = "announcements", id: str | None = None, strict: bool = False
    ) -> Receipt:
        """Tell everybody, on a topic of ``system``. Raises as ``emit``."""
        return self.put(self._build(_system_topic(topic), payload, id), strict=strict)

    async def aannounce(
        self, payload: Event, *, topic: str = "announcements", id: str | None = None, strict: bool = False
    ) -> Receipt:
        """``announce`` for async code."""
        return await self.aput(self._build(_system_topic(topic), payload, id), strict=strict)

    def record_transition(self, operation: OperationRef, mark: TaskTransition, *, label: str = "") -> None:
        """Count something that happened to a leaf of an operation, in order with the events of that operation."""
        words = partial(event_stamp, label)
        channel = channel_of(operation.topic)
        self.outbox.put(TransitionEntry(channel, operation.topic, operation.op, mark, words))

    def position(self, channel: str) -> Position:
        """Where a channel stands: the cursor of somebody who knows everything up to now. Blocks for a round trip.

        Raises:
            Unavailable, Refused: Redis did not answer, or with an error.
        """
        publisher = self.publisher()
        try:
            return publisher.position(channel)
        finally:
            publisher.close()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until what was emitted has reached Redis; False after ``timeout`` seconds (default: flush budget)."""
        return self.outbox.flush(self.settings.flush_budget if timeout is None else timeout)

    def close(self) -> bool:
        """Flush within the budget and end the thread. A later ``emit`` starts it again."""
        return self.outbox.close(self.settings.flush_budget)

    @contextmanager
    def diverted(self, builder: EmissionBuilder, outbox: Outbox, broker: MemoryBroker) -> Iterator[None]:
        """For a block, take another way than the usual one, which keeps what it holds: for tests."""
        former = self._builder, self.outbox, self.broker
        self._builder, self.outbox, self.broker = builder, outbox, broker
        try:
            yield
        finally:
            self._builder, self.outbox, self.broker = former

    def emission(self, args: tuple[object, ...], id_: str | None) -> Emission:
        """Validate the arguments of ``emit`` and build what goes to Redis; raises as ``emit``."""
        topic, payload = _addressed(args)
        return self._build(topic, payload, id_)

    def builds(self, args: tuple[object, ...], id_: str) -> Callable[[], Emission]:
        """``emission`` as often as it is called, to where the arguments go by now; raises as ``emit``."""
        topic, payload = _addressed(args)
        return partial(self._build, topic, payload, id_)

    def _build(self, topic: str, payload: object, id_: str | None) -> Emission:
        emission = self._builder.build(topic, payload, id_=id_)  # type: ignore[arg-type] # it checks, whatever comes
        if emission.lifetime.ack_deadline_ms:
            emission.receipt.confirmation = DeliveryConfirmation(self.publisher, emission.channel, emission.id)
        return emission

    def put(self, emission: Emission, *, strict: bool = False) -> Receipt:
        """Queue an emission; ``strict``: and wait until Redis has it."""
        if strict:
            self.outbox.put_strict(emission, self.settings.strict_timeout)
        else:
            self.outbox.put(emission)
        return emission.receipt

    async def aput(self, emission: Emission, *, strict: bool = False) -> Receipt:
        """Queue an emission and wait, within the flush budget, until Redis has it."""
        if strict:
            await asyncio.to_thread(self.outbox.put_strict, emission, self.settings.strict_timeout)
        else:
            self.outbox.put(emission)
            await self.outbox.aflush(self.settings.flush_budget)
        return emission.receipt


def _addressed(args: tuple[object, ...]) -> tuple[str, object]:
    """Topic and payload of the arguments of ``emit``."""
    match args:
        case (user, op, payload):
            return _operation_topic(user, op), payload
        case (payload,):
            operation = current_operation.get()
            if operation is None:
                raise NoOperation
            return operation.topic, payload
    raise InvalidPayload("call emit(user, op, payload), or emit(payload) inside a task", field="payload")


def _operation_topic(user: object, op: object) -> str:
    return operation_topic(_text(user, "user"), _text(op, "op"))


def _broadcast_topic(collection: object, topic: object) -> str:
    return broadcast_topic(_text(collection, "collection"), _text(topic, "topic"))


def _system_topic(topic: object) -> str:
    return system_topic(_text(topic, "topic"))


def _text(value: object, field: str) -> str:
    # Before the caches of topics: 1 and True are equal keys there, and a list is none at all.
    if type(value) is not str:
        raise InvalidName(f"{field} must be a string, not {type(value).__name__}; convert it with str()", field=field)
    return value


_lock = threading.Lock()
_default: Bus | None = None
_override: Bus | None = None


def default_bus() -> Bus:
    """The bus of this process, made on first use with settings from the environment."""
    global _default  # noqa: PLW0603 - emit() in a task has no other way to its process's one bus
    if _override is not None:
        return _override
    if _default is None:
        with _lock:
            if _default is None:
                _default = Bus()
    return _default


def configure(settings: BusSettings | None = None, *, bus: Bus | None = None) -> Bus:
    """Set this process's bus. Call it before the first ``emit``; what the former one holds is flushed."""
    global _default
    with _lock:
        former, _default = _default, bus or Bus(settings)
    if former is not None and former is not _default:
        former.close()
    return _default


@contextmanager
def override_bus(bus: Bus) -> Iterator[Bus]:
    """For a block, ``bus`` is this process's bus, whatever ``configure`` says meanwhile: for tests. They nest."""
    global _override  # noqa: PLW0603 - see default_bus
    former, _override = _override, bus
    try:
        yield bus
    finally:
        _override = former


@overload
def emit(payload: Event, /, *, id: str | None = None, strict: bool = False) -> Receipt: ...
@overload
def emit(user: str, op: str, payload: Event, /, *, id: str | None = None, strict: bool = False) -> Receipt: ...
def emit(*args: object, id: str | None = None, strict: bool = False) -> Receipt:
    """``Bus.emit`` of this process's bus."""
    bus = default_bus()
    return bus.put(bus.emission(args, id), strict=strict)


@overload
async def aemit(payload: Event, /, *, id: str | None = None, strict: bool = False) -> Receipt: ...
@overload
async def aemit(user: str, op: str, payload: Event, /, *, id: str | None = None, strict: bool = False) -> Receipt: ...
async def aemit(*args: object, id: str | None = None, strict: bool = False) -> Receipt:
    """``Bus.aemit`` of this process's bus."""
    bus = default_bus()
    return await bus.aput(bus.emission(args, id), strict=strict)


def broadcast(
    collection: str, payload: Event, *, topic: str = "events", id: str | None = None, strict: bool = False
) -> Receipt:
    """``Bus.broadcast`` of this process's bus."""
    return default_bus().broadcast(collection, payload, topic=topic, id=id, strict=strict)


async def abroadcast(
    collection: str, payload: Event, *, topic: str = "events", id: str | None = None, strict: bool = False
) -> Receipt:
    """``Bus.abroadcast`` of this process's bus."""
    return await default_bus().abroadcast(collection, payload, topic=topic, id=id, strict=strict)


def announce(payload: Event, *, topic: str = "announcements", id: str | None = None, strict: bool = False) -> Receipt:
    """``Bus.announce`` of this process's bus."""
    return default_bus().announce(payload, topic=topic, id=id, strict=strict)


async def aannounce(
    payload: Event, *, topic: str = "announcements", id: str | None = None, strict: bool = False
) -> Receipt:
    """``Bus.aannounce`` of this process's bus."""
    return await default_bus().aannounce(payload, topic=topic, id=id, strict=strict)


@atexit.register
def _at_exit() -> None:
    if _default is not None:
        _default.close()
