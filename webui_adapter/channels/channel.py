"""A channel as one instance knows it: its position and its sessions."""

from __future__ import annotations

from eventbus.protocol.cursor import Position
from eventbus.protocol.history import History
from eventbus.protocol.records import Publication
from webui_adapter.session.output import Output
from webui_adapter.session.session import Session

__all__ = ["Channel"]


class Channel:
    """One channel of this gateway.

    Attributes:
        epoch, offset: everything up to here has been handed to the sessions; None and 0 until it was first read. Two
            fields, since a position is asked for rarely and made for each publication.
        history: the reading that opened it, as long as nothing has happened since: newcomers need no other.
        buffered: publications that wait for a repair; None while the channel is live.
        buffered_events: events in them.
        whole: sessions that read all of it and are up to date.
        partial: sessions that read some topics, or are being brought up to date.
    """

    __slots__ = ("buffered", "buffered_events", "epoch", "history", "name", "offset", "partial", "whole")

    def __init__(self, name: str) -> None:
        self.name = name
        self.epoch: str | None = None
        self.offset = 0
        self.history: History | None = None
        self.buffered: list[Publication] | None = []
        self.buffered_events = 0
        self.whole: dict[Output, Session] = {}
        self.partial: dict[Session, None] = {}

    @property
    def live(self) -> bool:
        """Whether publications are handed on as they come."""
        return self.buffered is None

    @property
    def position(self) -> Position | None:
        """Where it is; None until it was first read."""
        return None if self.epoch is None else Position(self.epoch, self.offset)

    @position.setter
    def position(self, position: Position) -> None:
        self.epoch, self.offset = position

    @property
    def unused(self) -> bool:
        """Whether nobody reads it."""
        return not self.whole and not self.partial
