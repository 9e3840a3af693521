"""``Bus``: validates events and hands them to the outbox."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import overload

from eventbus.addressing import target_of, topic_of_announcement, topic_of_broadcast
from eventbus.backends.memory.adapters import MemoryBroker, MemoryPublisher
from eventbus.backends.ports import Publisher
from eventbus.backends.redis.publisher import RedisPublisher
from eventbus.events.encoder import Emission, EmissionBuilder
from eventbus.events.event import Event
from eventbus.events.receipt import Receipt
from eventbus.operations.changes import event_stamp
from eventbus.operations.events import OperationRef
from eventbus.operations.state import TaskTransition
from eventbus.outbox.confirmation import DeliveryConfirmation
from eventbus.outbox.entries import TransitionEntry
from eventbus.outbox.outbox import Outbox
from eventbus.process_state import check_process
from eventbus.protocol.cursor import Position
from eventbus.protocol.topics import UserId, channel_of
from eventbus.settings import BusSettings

__all__ = ["Bus"]


class Bus:
    """A process's connection to Redis: validation, outbox, thread.

    The plain methods queue an event and return. The ``a…`` methods queue it and wait until Redis has it, at most
    ``flush_budget`` seconds. No method raises because Redis is down. A mistake in the call raises before anything is
    sent.

    Args:
        settings: default: read from the environment.
        broker: an in-process transport to share; default: made for a ``memory://`` address, else Redis is used.

    Attributes:
        outbox: events that wait, and their counters.
    """

    def __init__(self, settings: BusSettings | None = None, *, broker: MemoryBroker | None = None) -> None:
        self.settings = settings or BusSettings()
        if broker is None and self.settings.redis_url.startswith("memory:"):
            broker = MemoryBroker(self.settings)
        self.broker = broker
        self._builder = EmissionBuilder(self.settings)
        self.outbox = Outbox(self.settings, self.publisher)

    def publisher(self) -> Publisher:
        """Return a new blocking publisher. The caller closes it."""
        return RedisPublisher(self.settings, voter=True) if self.broker is None else MemoryPublisher(self.broker)

    @overload
    def emit(self, payload: Event, /, *, id: str | None = None, strict: bool = False) -> Receipt: ...
    @overload
    def emit(
        self, user: UserId, op: str, payload: Event, /, *, id: str | None = None, strict: bool = False
    ) -> Receipt: ...
    def emit(self, *args: object, id: str | None = None, strict: bool = False) -> Receipt:
        """Send a user an event of an operation: ``emit(user, op, payload)``, or ``emit(payload)`` in a task.

        Args:
            *args: user id, operation id and event; or the event alone, inside an operation.
            id: event id that makes the call idempotent: Redis publishes an id once; default: a new id.
            strict: wait until Redis has the event, at most ``strict_timeout`` seconds.

        Returns:
            The receipt.

        Raises:
            InvalidEmission: ``field`` names the argument that is wrong. Nothing was sent.
            Unavailable: with ``strict`` only: Redis did not take the event in ``strict_timeout`` seconds.
            Refused: with ``strict`` only: Redis or the outbox refused the event.
            RateLimited: with ``strict`` only: the channel is over ``channel_rate``.
            NoOperation: ``emit(payload)`` was called outside any operation.
        """
        return self.put(self.emission(args, id), strict=strict)

    @overload
    async def aemit(self, payload: Event, /, *, id: str | None = None, strict: bool = False) -> Receipt: ...
    @overload
    async def aemit(
        self, user: UserId, op: str, payload: Event, /, *, id: str | None = None, strict: bool = False
    ) -> Receipt: ...
    async def aemit(self, *args: object, id: str | None = None, strict: bool = False) -> Receipt:
        """``emit`` for async code.

        Args:
            *args: as ``emit``.
            id: event id that makes the call idempotent: Redis publishes an id once; default: a new id.
            strict: wait until Redis has the event, at most ``strict_timeout`` seconds.

        Returns:
            The receipt. It has the offset, unless Redis was unreachable.

        Raises:
            EventBusError: as ``Bus.emit``.
        """
        return await self.aput(self.emission(args, id), strict=strict)

    def broadcast(
        self, collection: str, payload: Event, *, topic: str = "events", id: str | None = None, strict: bool = False
    ) -> Receipt:
        """Send an event to every user who watches a collection.

        Args:
            collection: id of the collection.
            payload: the event.
            topic: relative to the collection.
            id: event id that makes the call idempotent: Redis publishes an id once; default: a new id.
            strict: wait until Redis has the event, at most ``strict_timeout`` seconds.

        Returns:
            The receipt.

        Raises:
            EventBusError: as ``Bus.emit``.
        """
        return self.put(self._build(topic_of_broadcast(collection, topic), payload, id), strict=strict)

    async def abroadcast(
        self, collection: str, payload: Event, *, topic: str = "events", id: str | None = None, strict: bool = False
    ) -> Receipt:
        """``broadcast`` for async code.

        Args:
            collection: id of the collection.
            payload: the event.
            topic: relative to the collection.
            id: event id that makes the call idempotent: Redis publishes an id once; default: a new id.
            strict: wait until Redis has the event, at most ``strict_timeout`` seconds.

        Returns:
            The receipt. It has the offset, unless Redis was unreachable.

        Raises:
            EventBusError: as ``Bus.emit``.
        """
        return await self.aput(self._build(topic_of_broadcast(collection, topic), payload, id), strict=strict)

    def announce(
        self, payload: Event, *, topic: str = "announcements", id: str | None = None, strict: bool = False
    ) -> Receipt:
        """Send an event to all users.

        Args:
            payload: the event.
            topic: relative to ``system``.
            id: event id that makes the call idempotent: Redis publishes an id once; default: a new id.
            strict: wait until Redis has the event, at most ``strict_timeout`` seconds.

        Returns:
            The receipt.

        Raises:
            EventBusError: as ``Bus.emit``.
        """
        return self.put(self._build(topic_of_announcement(topic), payload, id), strict=strict)

    async def aannounce(
        self, payload: Event, *, topic: str = "announcements", id: str | None = None, strict: bool = False
    ) -> Receipt:
        """``announce`` for async code.

        Args:
            payload: the event.
            topic: relative to ``system``.
            id: event id that makes the call idempotent: Redis publishes an id once; default: a new id.
            strict: wait until Redis has the event, at most ``strict_timeout`` seconds.

        Returns:
            The receipt. It has the offset, unless Redis was unreachable.

        Raises:
            EventBusError: as ``Bus.emit``.
        """
        return await self.aput(self._build(topic_of_announcement(topic), payload, id), strict=strict)

    def record_transition(self, operation: OperationRef, transition: TaskTransition, *, label: str = "") -> None:
        """Record a transition of a task, in order with the events of its operation.

        Args:
            operation: the operation that the task belongs to.
            transition: what happened to the task.
            label: name of the operation for users; empty: unchanged.
        """
        check_process()
        stamp = partial(event_stamp, label)
        channel = channel_of(operation.topic)
        self.outbox.put(TransitionEntry(channel, operation.topic, operation.op, transition, stamp))

    def position(self, channel: str) -> Position:
        """Return the present position of a channel: the cursor of a reader that knows everything so far.

        Blocks for a round trip.

        Args:
            channel: such as ``user:42``.

        Raises:
            Unavailable: Redis did not answer.
            Refused: Redis answered with an error.
        """
        publisher = self.publisher()
        try:
            return publisher.position(channel)
        finally:
            publisher.close()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until Redis has everything that was emitted so far.

        Args:
            timeout: seconds; default: ``flush_budget``.

        Returns:
            False after ``timeout``, immediately while Redis is down, and if this process dropped an event since the
            last call of this thread that waited to the end. Its receipt says so, too.
        """
        return self.outbox.flush(self.settings.flush_budget if timeout is None else timeout)

    def close(self) -> bool:
        """Flush within ``flush_budget`` and end the thread. A later ``emit`` starts it again.

        Returns:
            Whether Redis has everything. The rest is in the spool, where there is one.
        """
        return self.outbox.close(self.settings.flush_budget)

    @contextmanager
    def diverted(self, builder: EmissionBuilder, outbox: Outbox, broker: MemoryBroker) -> Iterator[None]:
        """For a block, use another builder, outbox and broker. For tests.

        Args:
            builder: builds emissions.
            outbox: takes them.
            broker: answers for Redis.

        Yields:
            Nothing.
        """
        former = self._builder, self.outbox, self.broker
        self._builder, self.outbox, self.broker = builder, outbox, broker
        try:
            yield
        finally:
            self._builder, self.outbox, self.broker = former

    def emission(self, args: tuple[object, ...], id_: str | None) -> Emission:
        """Validate the arguments of ``emit`` and build an emission without sending it.

        Args:
            args: as ``emit``.
            id_: event id; None: a new one.

        Returns:
            The emission.

        Raises:
            InvalidEmission: as ``emit``.
            NoOperation: as ``emit``.
        """
        topic, payload = target_of(args)
        return self._build(topic, payload, id_)

    def builds(self, args: tuple[object, ...], id_: str) -> Callable[[], Emission]:
        """Return a function that builds the emission at each call, for the present user and operation.

        Args:
            args: as ``emit``.
            id_: event id.

        Raises:
            InvalidEmission: as ``emit``.
            NoOperation: as ``emit``.
        """
        topic, payload = target_of(args)
        return partial(self._build, topic, payload, id_)

    def _build(self, topic: str, payload: object, id_: str | None) -> Emission:
        emission = self._builder.build(topic, payload, id_=id_)  # type: ignore[arg-type] # it checks the type
        if emission.lifetime.ack_deadline_ms:
            emission.receipt.confirmation = DeliveryConfirmation(self.publisher, emission.channel, emission.id)
        return emission

    def put(self, emission: Emission, *, strict: bool = False) -> Receipt:
        """Queue an emission.

        Args:
            emission: built by this bus.
            strict: wait until Redis has it.

        Returns:
            Its receipt.
        """
        if strict:
            self.outbox.put_strict(emission, self.settings.strict_timeout)
        else:
            self.outbox.put(emission)
        return emission.receipt

    async def aput(self, emission: Emission, *, strict: bool = False) -> Receipt:
        """Queue an emission and wait until Redis has it, at most ``flush_budget`` seconds.

        Args:
            emission: built by this bus.
            strict: wait at most ``strict_timeout`` seconds instead, and raise where it fails.

        Returns:
            Its receipt.
        """
        if strict:
            await asyncio.to_thread(self.outbox.put_strict, emission, self.settings.strict_timeout)
        else:
            self.outbox.put(emission)
            await self.outbox.await_settled(self.settings.flush_budget)
        return emission.receipt
