"""The ports between a session and its connection: how events become bytes, and where the bytes go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from webui_adapter.session.batch import Delivery

if TYPE_CHECKING:
    from webui_adapter.session.output import Output

__all__ = ["Encoder", "Transport"]


class Encoder(Protocol):
    """How events become bytes of one kind of connection.

    Attributes:
        shares_frames: The connection accepts the prepared frames of a ``Batch``.
        answers_pings: The client answers pings, so a missing pong means that the connection is dead.
    """

    shares_frames: bool
    answers_pings: bool

    def event(self, output: Output, delivery: Delivery) -> bytes:
        """Return the bytes of an event.

        Args:
            output: The output, whose cursor a resume point may need.
            delivery: The event.
        """

    def control(self, output: Output, type_: str, data: Mapping[str, object]) -> bytes:
        """Return the bytes of a control event.

        Args:
            output: The output, whose cursor and clock the event may need.
            type_: The event's type: ``bus.…``.
            data: Its data; JSON values.
        """

    def local(self, type_: str, event: bytes) -> bytes:
        """Return the bytes of an event without a position.

        Args:
            type_: The event's type.
            event: The whole event as JSON.
        """


class Transport(Protocol):
    """The connection that one session writes to. No method may block or raise."""

    def flush(self) -> None:
        """Write what is in ``output.out``; end the connection if ``output.close_code`` is set."""

    def ping(self) -> None:
        """Send a ping."""

    def cut(self) -> None:
        """End the connection without waiting for the peer."""
