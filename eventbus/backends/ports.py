"""The ports between this library and a backend that keeps and carries the events.

The ports are small, so that each user of a backend takes only the one that it needs. Further ports
are ``PendingStore``, ``SweepStore``, ``RevocationStore``, ``OperationStore`` and ``LeaseStore``. ``backends.redis``
implements all of them, ``backends.memory`` all but ``SweepStore`` and ``LeaseStore``. Both pass the
same contract tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, Protocol, runtime_checkable

from eventbus.backends.pending import DeliveryStatus
from eventbus.clock import ServerClock
from eventbus.events.encoder import Emission
from eventbus.operations.changes import EventStamp
from eventbus.operations.state import Counts, TaskTransition
from eventbus.protocol.cursor import Position
from eventbus.protocol.history import History, Page

__all__ = [
    "IS_REPLICA",
    "Probe",
    "Published",
    "Publisher",
    "Reader",
    "RecordTransitions",
    "Request",
    "RestingPublisher",
    "TimedPublisher",
    "Write",
]

IS_REPLICA: Final = "it is a replica"
"""The probe's reason when another server has become the master."""

_ACK_DEADLINE = attrgetter("lifetime.ack_deadline_ms")


@dataclass(slots=True)
class Write:
    """A request to publish events of one channel. Not frozen, like ``Published``, since frozen ones
    take longer to make.

    Attributes:
        channel: the channel, such as ``user:42``.
        emissions: the events in the order of publication.
    """

    channel: str
    emissions: Sequence[Emission]

    @property
    def needs_ack(self) -> bool:
        """Whether a client must acknowledge at least one of the events."""
        return any(map(_ACK_DEADLINE, self.emissions))


@dataclass(frozen=True, slots=True)
class RecordTransitions:
    """A request to count transitions of one operation.

    Attributes:
        channel: the user's channel.
        operation: the operation's id.
        transitions: the transitions in order.
        stamp: id and time of the events that report the changes.
    """

    channel: str
    operation: str
    transitions: Sequence[TaskTransition]
    stamp: EventStamp


Request = Write | RecordTransitions


@dataclass(slots=True)
class Published:
    """Result of a request.

    Attributes:
        position: the channel's end after the request.
        offsets: for a ``Write``, one for each event; a negative one means that the id was known and
            is minus the first event's offset.
        receivers: number of subscribers that the server sent it to; means nothing on a cluster.
        pruned: number of states that a full snapshot dropped.
        counts: for ``RecordTransitions``, the operation's counts after the request.
    """

    position: Position
    offsets: Sequence[int]
    receivers: int
    pruned: int
    counts: Counts | None = None


class Publisher(Protocol):
    """The blocking side of a backend. One thread uses it at a time."""

    def publish(self, requests: Sequence[Request]) -> list[Published | Exception]:
        """Carry out requests in order, in one round trip.

        Args:
            requests: the requests.

        Returns:
            One result for each request: ``Refused`` if the server rejects it, ``Unavailable`` if it
                cannot take it now.

        Raises:
            Unavailable: the outcome of all requests is unknown. It is safe to publish them again,
                since ids are deduplicated.
        """

    def position(self, channel: str) -> Position:
        """Return the channel's end.

        Args:
            channel: the channel, such as ``user:42``.

        Raises:
            Unavailable, Refused: the server did not answer, or rejected the request.
        """

    def delivery_status(self, channel: str, id_: str) -> tuple[DeliveryStatus, str]:
        """Return the status of an event that needs an acknowledgement.

        Args:
            channel: the user's channel.
            id_: the event's id.

        Returns:
            The status, and the reason of a dead letter, else an empty text.

        Raises:
            Unavailable, Refused: the server did not answer, or rejected the request.
        """

    def close(self) -> None:
        """Close the connections."""


@runtime_checkable
class TimedPublisher(Publisher, Protocol):
    """A publisher for callers that have little time."""

    def publish_within(self, requests: Sequence[Request], seconds: float) -> list[Published | Exception]:
        """Publish over the existing connection with another time limit.

        Args:
            requests: the requests.
            seconds: time limit. No new connection is made in it.

        Returns:
            As ``publish``.

        Raises:
            Unavailable: as ``publish``; also if there is no connection.
        """


@runtime_checkable
class RestingPublisher(Publisher, Protocol):
    """A publisher that says when it writes nothing for now. After a restart of the server no process waits for it."""

    @property
    def rest_in(self) -> float | None:
        """Seconds until ``rest`` is due; None: it is not due before the next request."""

    def rest(self) -> None:
        """Say that this process writes nothing for now.

        Raises:
            Unavailable, Refused: the server did not answer, or rejected the request. Call it again soon.
        """


class Reader(Protocol):
    """Reads the history of channels, in an event loop."""

    async def read(self, channel: str, after: int | None, page: Page | None = None) -> History:
        """Read log, snapshot and position of a channel in one step.

        Args:
            channel: the channel, such as ``user:42``.
            after: return log entries above this offset; None: no log entries.
            page: limits of the log part; None: all entries.

        Returns:
            The history.

        Raises:
            Unavailable, Refused: the server did not answer, or rejected the request.
        """

    async def fork(self, channel: str, epoch: str) -> bool:
        """Begin a new epoch of a channel whose data went back in time. Offsets continue.

        Args:
            channel: the channel.
            epoch: the epoch to end.

        Returns:
            False if the channel has another epoch already.

        Raises:
            Unavailable, Refused: the server did not answer, or rejected the request.
        """

    def be_voter(self, heard: Callable[[], tuple[str, Position] | None], moved: Callable[[str], None]) -> None:
        """Be one of the processes that state after a restart whether the server lost data.

        Args:
            heard: returns the channel and the position of the last publication that this process received.
            moved: called with a reason before the statement, if the data are those of another server. It must end the
                delivery of the former server's publications: the statement would not cover them.
        """

    async def renew(self) -> bool:
        """Renew what this process states after a restart. A gateway calls it about once a second.

        Returns:
            True if the data have another timeline now: all channels have to be read again.

        Raises:
            Unavailable, Refused: the server did not answer, or rejected the request.
        """

    async def positions(self, channels: Sequence[str]) -> list[Position]:
        """Return the ends of channels, in one round trip.

        Args:
            channels: the channels.

        Returns:
            One position for each channel; the beginning for one that the server does not know.

        Raises:
            Unavailable, Refused: the server did not answer, or rejected the request.
        """

    async def aclose(self) -> None:
        """Close the connections."""


class Probe(Protocol):
    """Checks a server's health on a separate connection.

    Attributes:
        clock: the server's clock, as of the last canary.
    """

    clock: ServerClock

    async def publish_canary(self, text: str, instance: str) -> str | None:
        """Publish a canary, which listeners get with ``canary_received``, and write a small key.

        Args:
            text: the canary.
            instance: name of this instance.

        Returns:
            Why the server refuses writes; None if it takes them.

        Raises:
            Unavailable, Refused: the server did not publish the canary.
        """

    async def aclose(self) -> None:
        """Close the connections."""
