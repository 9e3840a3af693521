"""An event that is checked now and sent later, if what it tells of comes true."""

from __future__ import annotations

from collections.abc import Callable

from eventbus.bus import Bus, default_bus
from eventbus.events.encoder import Emission
from eventbus.events.receipt import Receipt

__all__ = ["DeferredEvent", "defer"]


class DeferredEvent:
    """What ``defer`` returns: to be sent or to be dropped, once.

    Attributes:
        receipt: what the caller has; its fate is ``waiting`` until then.
        emission: what was built for the check. It is built again when it is sent: the event's time and the end of its
            life are those of what it tells, not of the call.
    """

    __slots__ = ("_build", "_bus", "emission", "receipt")

    def __init__(self, bus: Bus, build: Callable[[], Emission]) -> None:
        self._bus = bus
        self._build = build
        self.emission = build()
        self.emission.tail = b""  # it was for the check; what waits is held once
        self.receipt = self.emission.receipt

    def send(self) -> Receipt:
        """It has come true."""
        emission = self._build()
        emission.receipt = self.receipt
        return self._bus.put(emission)

    def drop(self, reason: str) -> None:
        """It has not. Counted by reason in ``bus.outbox.dropped``."""
        self._bus.outbox.give_up(self.emission, reason)


def defer(args: tuple[object, ...], id_: str) -> DeferredEvent:
    """Check the arguments of ``emit``; user and operation are those that are current now.

    Raises:
        InvalidEmission, NoOperation: as ``emit``.
    """
    bus = default_bus()
    return DeferredEvent(bus, bus.builds(args, id_))
