"""The ports between this library and whatever carries the events. Small ones: an end takes only what it needs.

``eventbus.backends.redis`` and ``eventbus.backends.memory`` implement all three and pass the same contract tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol, runtime_checkable

from eventbus.backends.pending import DeliveryStatus
from eventbus.events.encoder import Emission
from eventbus.operations.changes import EventStamp
from eventbus.operations.state import Counts, TaskTransition
from eventbus.protocol.cursor import Position
from eventbus.protocol.history import History, Page

__all__ = [
    "Listener",
    "Probe",
    "Published",
    "Publisher",
    "Reader",
    "RecordTransitions",
    "Request",
    "Subscriber",
    "TimedPublisher",
    "Write",
]

_ACK_DEADLINE = attrgetter("ack_deadline")


@dataclass(slots=True)
class Write:
    """Events of one channel, to be published in this order. Not frozen, as Published: that would make them dear."""

    channel: str
    emissions: Sequence[Emission]

    @property
    def needs_ack(self) -> bool:
        """Whether something of it has to be acknowledged."""
        return any(map(_ACK_DEADLINE, self.emissions))


@dataclass(frozen=True, slots=True)
class RecordTransitions:
    """Marks of one operation, to be counted in this order."""

    channel: str
    operation: str
    transitions: Sequence[TaskTransition]
    stamp: EventStamp


Request = Write | RecordTransitions


@dataclass(slots=True)
class Published:
    """What became of a request.

    Attributes:
        position: the channel's end afterwards.
        offsets: of a Write, one for each emission; negative: the id was known, the first one's offset.
        receivers: how many subscribers the server handed it to (means nothing on a cluster).
        pruned: states that a full snapshot pushed out.
        counts: of an Advance.
    """

    position: Position
    offsets: Sequence[int]
    receivers: int
    pruned: int
    counts: Counts | None = None


class Publisher(Protocol):
    """Blocking side, used by one thread at a time."""

    def publish(self, requests: Sequence[Request]) -> list[Published | Exception]:
        """Carry out requests in order, in one round trip.

        Where the server refuses a request its place has a ``Refused``, where it cannot take it now an ``Unavailable``.

        Raises:
            Unavailable: nothing is known of any of them; publishing them again is safe, ids are remembered.
        """

    def position(self, channel: str) -> Position:
        """Where the channel stands. Raises Unavailable or Refused."""

    def delivery_status(self, channel: str, id_: str) -> tuple[DeliveryStatus, str]:
        """What has become of an event that the user is owed, and why it died if it did. Raises Unavailable, Refused."""

    def close(self) -> None:
        """Give up connections."""


@runtime_checkable
class TimedPublisher(Publisher, Protocol):
    """One that can be used by somebody whose time is short."""

    def publish_within(self, requests: Sequence[Request], seconds: float) -> list[Published | Exception]:
        """``publish`` over the connection that there is, with another time limit. Raises as ``publish``."""


class Reader(Protocol):
    """Reading a channel's history, from an event loop."""

    async def read(self, channel: str, after: int | None, page: Page | None = None) -> History:
        """Log above ``after`` (None: none of it), snapshot and position, in one step; of the log a page at most.

        Raises:
            Unavailable, Refused.
        """

    async def positions(self, channels: Sequence[str]) -> list[Position]:
        """Where channels stand, in one round trip; one that Redis does not know is at the beginning.

        Raises:
            Unavailable, Refused.
        """

    async def aclose(self) -> None:
        """Give up connections."""


class Probe(Protocol):
    """Asking a server how it is, on a connection of its own."""

    async def publish_canary(self, text: str, instance: str) -> str | None:
        """Publish ``text`` for the listeners' ``canary_received``, and write a little. Why writes are refused, or None.

        Raises:
            Unavailable, Refused: it could not even be published.
        """

    async def aclose(self) -> None:
        """Give up connections."""


class Listener(Protocol):
    """Who hears a subscription. All calls come from the event loop's thread and must not block."""

    def received(self, channel: str, payload: bytes) -> None:
        """A publication arrived."""

    def turn_ended(self) -> None:
        """All publications of one socket read have been handed over."""

    def canary_received(self, text: str) -> None:
        """A probe arrived, this instance's or another's; everything published before it has."""

    def lost(self, reason: str) -> None:
        """The subscription is broken; what is published now will not arrive."""

    def restored(self) -> None:
        """All channels are subscribed again; something may be missing."""


class Subscriber(Protocol):
    """Live publications."""

    async def start(self, listener: Listener) -> None:
        """Begin; keeps itself connected from then on."""

    async def subscribe(self, channel: str) -> None:
        """Return when the server has acknowledged. Raises Unavailable."""

    def unsubscribe(self, channel: str) -> None:
        """No longer of interest."""

    def reconnect(self, reason: str) -> None:
        """Give the connection up and make another: what is published does not arrive on this one."""

    async def aclose(self) -> None:
        """End."""
