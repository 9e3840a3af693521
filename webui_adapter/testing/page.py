"""The rules of the protocol for clients (docs/reference/protocol.md), without a connection."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["ChannelPosition", "Frame", "Page"]

Frame = dict[str, Any]

_REMEMBERED: Final = 10_000


@dataclass
class ChannelPosition:
    """A client's position in one channel.

    Attributes:
        epoch: the life of the channel.
        offset: the client has received everything up to here.
        held: whether events arrive out of order at present.
        seen: offsets above ``offset`` that the client has received.
        repeats: up to this offset, events of another epoch may be delivered again.
    """

    epoch: str
    offset: int
    held: bool = False
    seen: set[int] = field(default_factory=set)
    repeats: float = 0

    def move(self, offset: int) -> None:
        """Note that the client has received everything up to an offset.

        Args:
            offset: the offset.
        """
        self.offset = offset
        self.seen = {seen for seen in self.seen if seen > offset}


class Page:
    """Keeps a cursor and drops duplicates.

    Args:
        cursor: the cursor of an earlier page, or empty.

    Attributes:
        events: the events that listeners of the page would receive, in order.
        control_events: the control events, in order.
        positions: the cursor, by channel.
        gaps: how often the gateway reported missing events.
        unacked: ids of received events that wait for an acknowledgement, in order; a test sends it.
    """

    def __init__(self, cursor: str = "") -> None:
        self.events: list[Frame] = []
        self.control_events: list[Frame] = []
        self.positions: dict[str, ChannelPosition] = {}
        self.unacked: list[str] = []
        self.gaps = 0
        self._handled: set[str] = set()
        # Id -> the epoch in which the event arrived; empty for an event without an offset.
        self._epochs: dict[str, str] = {}
        for part in filter(None, cursor.split(",")):
            channel, _, position = part.partition("=")
            epoch, _, offset = position.rpartition(".")
            self.positions[channel] = ChannelPosition(epoch, int(offset))
        self._began = {channel: (position.epoch, position.offset) for channel, position in self.positions.items()}

    @property
    def cursor(self) -> str:
        """The cursor as text. A channel without an epoch starts at the beginning."""
        return ",".join(
            f"{channel}={position.epoch}.{position.offset}" if position.epoch else f"{channel}=0"
            for channel, position in self.positions.items()
        )

    def receive(self, text: str | bytes) -> Frame:
        """Take in a frame. A duplicate goes no further.

        Args:
            text: the frame.

        Returns:
            The frame as an object.
        """
        frame: Frame = json.loads(text)
        if frame["type"].startswith("bus."):
            self.control_events.append(frame)
            self._control(frame["type"], frame["data"])
        elif self._accept(frame):
            self.events.append(frame)
        return frame

    def data_of(self, type_: str) -> list[Frame]:
        """Return the data of all control events of a type.

        Args:
            type_: the type, ``bus.…``.
        """
        return [event["data"] for event in self.control_events if event["type"] == type_]

    def got(self, type_: str, member: str = "n") -> list[Any]:
        """Return one member of the data of all events of a type.

        Args:
            type_: the event's type.
            member: the member's name.
        """
        return [event["data"][member] for event in self.events if event["type"] == type_]

    def _accept(self, frame: Frame) -> bool:
        if "offset" not in frame:
            return self._arrived(frame["id"], "") is None
        parts = frame["topic"].split(":")
        channel = parts[0] if parts[0] == "system" else ":".join(parts[:2])
        position, offset = self.positions[channel], frame["offset"]
        assert position.epoch, "an event came before bus.subscribed of its channel"
        known = self._arrived(frame["id"], position.epoch)
        if frame.get("ack"):
            return self._accept_pending(frame, position, *self._began.get(channel, ("", 0))) and known != ""
        if offset <= position.offset:
            return False
        seen = offset in position.seen
        if position.held:
            position.seen.add(offset)
        else:
            position.move(offset)
        again = known is not None and known != position.epoch and (known == "" or offset > position.repeats)
        return not seen and not again

    def _arrived(self, id_: str, epoch: str) -> str | None:
        """Remember that an event has arrived. Return the epoch in which it arrived before."""
        before = self._epochs.get(id_)
        self._epochs[id_] = epoch
        if len(self._epochs) > _REMEMBERED:
            del self._epochs[next(iter(self._epochs))]
        return before

    def _accept_pending(self, frame: Frame, position: ChannelPosition, epoch: str, began: int) -> bool:
        """Compare ids: the gateway may send the event again, with the same offset."""
        self.unacked.append(frame["id"])
        offset = frame["offset"]
        if offset > position.offset and position.held:
            position.seen.add(offset)
        elif offset > position.offset:
            position.move(offset)
        known = frame["id"] in self._handled or (position.epoch == epoch and offset <= began)
        self._handled.add(frame["id"])
        return not known

    def _control(self, type_: str, data: Frame) -> None:
        match type_:
            case "bus.hello":
                for position in self.positions.values():
                    position.held = False
            case "bus.subscribed":
                self._subscribed(data)
            case "bus.gap":
                self.gaps += 1
            case "bus.position":
                position = self.positions[data["channel"]]
                assert position.epoch == data["epoch"]
                position.move(max(position.offset, data["offset"]))
                if position.repeats == math.inf:
                    position.repeats = data["offset"]
            case "bus.hold":
                position = self.positions[data["channel"]]
                position.held = True
                position.move(data["offset"])
            case "bus.release":
                position = self.positions[data["channel"]]
                position.held = False
                position.move(max(position.offset, data["offset"]))
            case _:
                pass

    def _subscribed(self, data: Frame) -> None:
        old = self.positions.get(data["channel"])
        position = ChannelPosition(data["epoch"], data["offset"], held=old is not None and old.held)
        if old is not None and data["how"] == "resumed" and old.epoch == data["epoch"]:
            position.seen, position.repeats = old.seen, max(old.repeats, old.offset)
        elif data["how"] != "resumed":
            position.repeats = math.inf  # the present state comes whole
        position.move(data["offset"])
        self.positions[data["channel"]] = position
