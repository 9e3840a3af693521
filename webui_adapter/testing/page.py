"""A page by the rules for clients of docs/reference/protocol.md, without anything else of a client."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ChannelPosition", "Frame", "Page"]

Frame = dict[str, Any]


@dataclass
class ChannelPosition:
    """Where a page is in one channel."""

    epoch: str
    offset: int
    held: bool = False
    seen: set[int] = field(default_factory=set)

    def move(self, offset: int) -> None:
        """All up to here has been seen."""
        self.offset = offset
        self.seen = {seen for seen in self.seen if seen > offset}


class Page:
    """Keeps a cursor and drops what it has seen.

    Attributes:
        events: those that listeners of the page would have got, in order.
        words: the gateway's own, in order.
        tracks: the cursor.
        gaps: how often it was told that events are missing.
        unacked: ids that have come and wait for this page's acknowledgement, in order; a test sends it.
        local: ids of events that came without an offset.
    """

    def __init__(self, cursor: str = "") -> None:
        """``cursor`` is where an earlier page has got to."""
        self.events: list[Frame] = []
        self.control_events: list[Frame] = []
        self.positions: dict[str, ChannelPosition] = {}
        self.unacked: list[str] = []
        self.gaps = 0
        self._handled: set[str] = set()
        self.local: set[str] = set()
        for part in filter(None, cursor.split(",")):
            channel, _, position = part.partition("=")
            epoch, _, offset = position.rpartition(".")
            self.positions[channel] = ChannelPosition(epoch, int(offset))
        self._began = {channel: (track.epoch, track.offset) for channel, track in self.positions.items()}

    @property
    def cursor(self) -> str:
        """An offset without an epoch means nothing: then it is the beginning."""
        return ",".join(
            f"{channel}={track.epoch}.{track.offset}" if track.epoch else f"{channel}=0"
            for channel, track in self.positions.items()
        )

    def receive(self, text: str | bytes) -> Frame:
        """Take in what came; an event that is not new goes no further."""
        frame: Frame = json.loads(text)
        if frame["type"].startswith("bus."):
            self.control_events.append(frame)
            self._word(frame["type"], frame["data"])
        elif self._admit(frame):
            self.events.append(frame)
        return frame

    def data_of(self, type_: str) -> list[Frame]:
        """Data of the words of one type."""
        return [word["data"] for word in self.control_events if word["type"] == type_]

    def got(self, type_: str, member: str = "n") -> list[Any]:
        """One member of the payload of all events of a type."""
        return [event["data"][member] for event in self.events if event["type"] == type_]

    def _admit(self, frame: Frame) -> bool:
        if "offset" not in frame:
            known = frame["id"] in self.local
            self.local.add(frame["id"])
            return not known
        return self._moves(frame) and frame.get("id") not in self.local

    def _moves(self, frame: Frame) -> bool:
        """Whether the event is new to the cursor, which then goes on."""
        parts = frame["topic"].split(":")
        channel = parts[0] if parts[0] == "system" else ":".join(parts[:2])
        track, offset = self.positions[channel], frame["offset"]
        assert track.epoch, "an event came before its channel's epoch was said"
        if frame.get("ack"):
            return self._admit_owed(frame, track, *self._began.get(channel, ("", 0)))
        if offset <= track.offset or offset in track.seen:
            return False
        if track.held:
            track.seen.add(offset)
        else:
            track.move(offset)
        return True

    def _admit_owed(self, frame: Frame, track: ChannelPosition, epoch: str, began: int) -> bool:
        """By id, since the same one may come again, with the offset it had."""
        self.unacked.append(frame["id"])
        offset = frame["offset"]
        if offset > track.offset and track.held:
            track.seen.add(offset)
        elif offset > track.offset:
            track.move(offset)
        known = frame["id"] in self._handled or (track.epoch == epoch and offset <= began)
        self._handled.add(frame["id"])
        return not known

    def _word(self, type_: str, data: Frame) -> None:
        match type_:
            case "bus.hello":
                for track in self.positions.values():
                    track.held = False
            case "bus.subscribed":
                old = self.positions.get(data["channel"])
                goes_on = old is not None and data["how"] == "resumed" and old.epoch == data["epoch"]
                track = ChannelPosition(data["epoch"], data["offset"], held=old is not None and old.held)
                track.seen = old.seen if old is not None and goes_on else set()
                track.move(data["offset"])
                self.positions[data["channel"]] = track
            case "bus.gap":
                self.gaps += 1
            case "bus.position":
                track = self.positions[data["channel"]]
                assert track.epoch == data["epoch"]
                track.move(max(track.offset, data["offset"]))
            case "bus.hold":
                track = self.positions[data["channel"]]
                track.held = True
                track.move(data["offset"])
            case "bus.release":
                track = self.positions[data["channel"]]
                track.held = False
                track.move(max(track.offset, data["offset"]))
            case _:
                pass
