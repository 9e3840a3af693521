"""An event that is checked now and sent later, when its task succeeds or its transaction commits."""

from __future__ import annotations

from collections.abc import Callable

from eventbus.bus import Bus
from eventbus.events.encoder import Emission
from eventbus.events.receipt import Receipt
from eventbus.process_bus import default_bus

__all__ = ["DeferredEvent", "defer"]


class DeferredEvent:
    """An event that waits to be sent or dropped, once.

    Args:
        bus: sends it.
        build: makes its emission: for the check, and again when the event is sent. Its time and the end of its life
            are those of the success, not of the call.

    Attributes:
        receipt: its status is ``waiting`` until the event is sent or dropped.
        emission: the emission of the check.
    """

    __slots__ = ("_build", "_bus", "emission", "receipt")

    def __init__(self, bus: Bus, build: Callable[[], Emission]) -> None:
        self._bus = bus
        self._build = build
        self.emission = build()
        self.emission.tail = b""  # the check needed it; the waiting event holds its payload already
        self.receipt = self.emission.receipt

    def send(self) -> Receipt:
        """Return the receipt after sending the event."""
        emission = self._build()
        emission.receipt = self.receipt
        return self._bus.put(emission)

    def drop(self, reason: str) -> None:
        """Drop the event. It is counted in ``bus.outbox.dropped``.

        Args:
            reason: key of the counter.
        """
        self._bus.outbox.give_up(self.emission, reason)


def defer(args: tuple[object, ...], id_: str) -> DeferredEvent:
    """Check the arguments of ``emit`` and keep the event. User and operation are those that are current now.

    Args:
        args: as ``emit``.
        id_: event id.

    Returns:
        The event, to be sent or dropped.

    Raises:
        InvalidEmission: as ``emit``.
        NoOperation: as ``emit``.
    """
    bus = default_bus()
    return DeferredEvent(bus, bus.builds(args, id_))
