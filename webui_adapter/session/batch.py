"""What the hub hands to sessions: events of one publication, with the frames that all sessions share."""

from __future__ import annotations

from collections.abc import Sequence

from eventbus.protocol.policy import Keep
from eventbus.protocol.records import Record
from webui_adapter.protocol.websocket_frames import text_frame

__all__ = ["Batch", "Delivery"]


class Delivery:
    """One event for any number of sessions. ``frame`` is its WebSocket frame, built once."""

    __slots__ = ("channel", "frame", "record")

    def __init__(self, channel: str, record: Record) -> None:
        self.channel = channel
        self.record = record
        self.frame = text_frame(record.event)

    # What an outbox asks of its items.
    @property
    def topic(self) -> str:
        return self.record.topic

    @property
    def lane(self) -> int:
        return self.record.lane

    @property
    def keep(self) -> Keep:
        return self.record.keep

    @property
    def key(self) -> str | None:
        return self.record.key

    @property
    def expires(self) -> int:
        return self.record.expires

    @property
    def size(self) -> int:
        return self.record.size


class Batch:
    """Events of one channel that arrived together, ascending by offset.

    ``frames`` is all frames in one piece: what a session that keeps up gets, whatever their number. Most batches are
    for such sessions only; so the single deliveries are made when the first one asks who does not keep up.
    """

    __slots__ = ("_deliveries", "_records", "channel", "frames")

    def __init__(self, channel: str, records: Sequence[Record]) -> None:
        self.channel = channel
        if len(records) == 1:
            self.frames = text_frame(records[0].event)
        else:
            self.frames = b"".join([text_frame(record.event) for record in records])
        self._records = records
        self._deliveries: list[Delivery] | None = None

    @property
    def deliveries(self) -> list[Delivery]:
        """One for each event."""
        if self._deliveries is None:
            self._deliveries = [Delivery(self.channel, record) for record in self._records]
        return self._deliveries
