"""Events of one publication, as the hub passes them to sessions, with the frames that all sessions share."""

from __future__ import annotations

from collections.abc import Sequence

from eventbus.protocol.policy import Keep
from eventbus.protocol.records import Record
from webui_adapter.protocol.websocket_frames import text_frame

__all__ = ["Batch", "Delivery"]


class Delivery:
    """One event for any number of sessions.

    Attributes:
        channel: The channel.
        record: The event.
        frame: Its WebSocket frame, built once.
    """

    __slots__ = ("channel", "frame", "record")

    def __init__(self, channel: str, record: Record) -> None:
        self.channel = channel
        self.record = record
        self.frame = text_frame(record.event)

    # The properties that a priority queue needs of its items.
    @property
    def topic(self) -> str:
        """The event's topic."""
        return self.record.topic

    @property
    def lane(self) -> int:
        """The event's priority; 0 is the highest."""
        return self.record.lane

    @property
    def keep(self) -> Keep:
        """How long the channel keeps the event."""
        return self.record.keep

    @property
    def key(self) -> str | None:
        """The conflation key; None: the event is not conflated."""
        return self.record.key

    @property
    def expires(self) -> int:
        """When the event expires, in milliseconds since 1970; 0: never."""
        return self.record.expires

    @property
    def size(self) -> int:
        """The event's size in bytes."""
        return self.record.size


class Batch:
    """Events of one channel that arrived together, ascending by offset.

    Attributes:
        channel: The channel.
        frames: All frames in one piece. A session that keeps up gets them with one append, whatever their number.
    """

    __slots__ = ("_deliveries", "_records", "channel", "frames")

    def __init__(self, channel: str, records: Sequence[Record]) -> None:
        """Build the frames.

        Args:
            channel: The channel.
            records: The events, ascending by offset.
        """
        self.channel = channel
        if len(records) == 1:
            self.frames = text_frame(records[0].event)
        else:
            self.frames = b"".join([text_frame(record.event) for record in records])
        self._records = records
        # Made when the first slow session asks: most batches have none.
        self._deliveries: list[Delivery] | None = None

    @property
    def deliveries(self) -> list[Delivery]:
        """One delivery for each event."""
        if self._deliveries is None:
            self._deliveries = [Delivery(self.channel, record) for record in self._records]
        return self._deliveries
