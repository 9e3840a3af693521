"""The bus of this process, and the functions that use it: ``emit``, ``broadcast``, ``announce``."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import overload

from eventbus.bus import Bus
from eventbus.events.event import Event
from eventbus.events.receipt import Receipt
from eventbus.protocol.topics import UserId
from eventbus.settings import BusSettings

__all__ = [
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


class _ProcessBus:
    """The bus that ``emit()`` uses. A task has no other way to its process's one bus."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.default: Bus | None = None
        self.override: Bus | None = None


_process = _ProcessBus()


def default_bus() -> Bus:
    """Return the bus of this process. The first call makes it, with settings from the environment."""
    if _process.override is not None:
        return _process.override
    if _process.default is None:
        with _process.lock:
            if _process.default is None:
                _process.default = Bus()
    return _process.default


def configure(settings: BusSettings | None = None, *, bus: Bus | None = None) -> Bus:
    """Set the bus of this process. Call it before the first ``emit``. The former bus is closed.

    Args:
        settings: default: read from the environment.
        bus: a bus to use instead of a new one.

    Returns:
        The bus.
    """
    with _process.lock:
        former, current = _process.default, bus or Bus(settings)
        _process.default = current
    if former is not None and former is not current:
        former.close()
    return current


@contextmanager
def override_bus(bus: Bus) -> Iterator[Bus]:
    """For a block, ``bus`` is the bus of this process, whatever ``configure`` sets meanwhile. For tests. Blocks nest.

    Args:
        bus: replaces the bus of this process.

    Yields:
        The bus.
    """
    former, _process.override = _process.override, bus
    try:
        yield bus
    finally:
        _process.override = former


@overload
def emit(payload: Event, /, *, id: str | None = None, strict: bool = False) -> Receipt: ...
@overload
def emit(user: UserId, op: str, payload: Event, /, *, id: str | None = None, strict: bool = False) -> Receipt: ...
def emit(*args: object, id: str | None = None, strict: bool = False) -> Receipt:
    """``Bus.emit`` of this process's bus.

    Args:
        *args: user id, operation id and event; or the event alone, inside an operation.
        id: event id that makes the call idempotent: Redis publishes an id once; default: a new id.
        strict: wait until Redis has the event, at most ``strict_timeout`` seconds.

    Returns:
        The receipt.

    Raises:
        EventBusError: as ``Bus.emit``.
    """
    bus = default_bus()
    return bus.put(bus.emission(args, id), strict=strict)


@overload
async def aemit(payload: Event, /, *, id: str | None = None, strict: bool = False) -> Receipt: ...
@overload
async def aemit(
    user: UserId, op: str, payload: Event, /, *, id: str | None = None, strict: bool = False
) -> Receipt: ...
async def aemit(*args: object, id: str | None = None, strict: bool = False) -> Receipt:
    """``Bus.aemit`` of this process's bus.

    Args:
        *args: as ``emit``.
        id: event id that makes the call idempotent: Redis publishes an id once; default: a new id.
        strict: wait until Redis has the event, at most ``strict_timeout`` seconds.

    Returns:
        The receipt. It has the offset, unless Redis was unreachable.

    Raises:
        EventBusError: as ``Bus.emit``.
    """
    bus = default_bus()
    return await bus.aput(bus.emission(args, id), strict=strict)


def broadcast(
    collection: str, payload: Event, *, topic: str = "events", id: str | None = None, strict: bool = False
) -> Receipt:
    """``Bus.broadcast`` of this process's bus.

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
    return default_bus().broadcast(collection, payload, topic=topic, id=id, strict=strict)


async def abroadcast(
    collection: str, payload: Event, *, topic: str = "events", id: str | None = None, strict: bool = False
) -> Receipt:
    """``Bus.abroadcast`` of this process's bus.

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
    return await default_bus().abroadcast(collection, payload, topic=topic, id=id, strict=strict)


def announce(payload: Event, *, topic: str = "announcements", id: str | None = None, strict: bool = False) -> Receipt:
    """``Bus.announce`` of this process's bus.

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
    return default_bus().announce(payload, topic=topic, id=id, strict=strict)


async def aannounce(
    payload: Event, *, topic: str = "announcements", id: str | None = None, strict: bool = False
) -> Receipt:
    """``Bus.aannounce`` of this process's bus.

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
    return await default_bus().aannounce(payload, topic=topic, id=id, strict=strict)


@atexit.register
def _at_exit() -> None:
    if _process.default is not None:
        _process.default.close()
