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
        name: The channel's name.
        epoch: The epoch of the channel's position; None until the channel was read. The position is two fields, since
            each publication changes it and few callers read it.
        offset: The sessions have everything up to here.
        history: The reading that opened the channel, as long as nothing has happened since. It serves new sessions.
        buffered: Publications that wait for a recovery; None while the channel is live.
        buffered_events: The number of events in ``buffered``.
        whole: The outputs of the sessions that read all of the channel and are live.
        heard: After a reading: the offset up to which publications had arrived before it.
        read_to: The offset of the last reading, as long as publications from before it may arrive; else -1.
        went_back: Redis' data of this channel went back in time under the same epoch. The epoch has to end.
        partial: The sessions that read some topics, or are being recovered.
    """

    __slots__ = (
        "buffered",
        "buffered_events",
        "epoch",
        "heard",
        "history",
        "name",
        "offset",
        "partial",
        "read_to",
        "went_back",
        "whole",
    )

    def __init__(self, name: str) -> None:
        """Begin in recovery, without a session.

        Args:
            name: The channel's name.
        """
        self.name = name
        self.epoch: str | None = None
        self.offset = 0
        self.history: History | None = None
        self.buffered: list[Publication] | None = []
        self.buffered_events = 0
        self.heard = 0
        self.read_to = -1
        self.went_back = False
        self.whole: dict[Output, Session] = {}
        self.partial: dict[Session, None] = {}

    @property
    def live(self) -> bool:
        """Publications are delivered as they arrive."""
        return self.buffered is None

    @property
    def position(self) -> Position | None:
        """The channel's position; None until the channel was read."""
        return None if self.epoch is None else Position(self.epoch, self.offset)

    @position.setter
    def position(self, position: Position) -> None:
        self.epoch, self.offset = position

    def overlaps(self, before: int) -> bool:
        """Return whether a publication that begins at an earlier offset was published before the last reading.

        Publications arrive in order. So after the first one that follows the reading, none from before it arrives.

        Args:
            before: The offset that the publication follows.
        """
        return self.offset == self.read_to and before >= self.heard

    @property
    def unused(self) -> bool:
        """No session reads the channel."""
        return not self.whole and not self.partial
