"""What one session reads of one channel."""

from __future__ import annotations

from collections.abc import Iterable

from eventbus.backends.pending import PendingBatch
from eventbus.protocol.cursor import Position
from eventbus.protocol.records import Record
from eventbus.protocol.topics import matches
from webui_adapter.protocol.commands import Subscribe

__all__ = ["ChannelSubscription", "covered"]


class ChannelSubscription:
    """What a session reads of one channel.

    Attributes:
        patterns: as subscribed; together they decide which topics are seen.
        settled: those of them whose past has been handed over, up to ``delivered``.
        bringing: the subscription that is being brought up to date; None once that is over.
        kept: bytes of ``replaying``.
        replaying: live events that came meanwhile.
        waiting: subscriptions of this channel that come after that.
        skip_to: live events up to this offset were in the history already.
        position: where the session is in this channel, as far as it was told; None before.
        drained: whether what the user is owed has been read.
        owed: what that was, until it is handed over.
        requested: where it asked to resume; that stays its cursor until the replay begins.
    """

    __slots__ = (
        "bringing",
        "delivered",
        "drained",
        "kept",
        "owed",
        "patterns",
        "position",
        "replaying",
        "requested",
        "settled",
        "skip_to",
        "waiting",
        "whole",
    )

    def __init__(self) -> None:
        self.patterns: dict[str, None] = {}
        self.settled: tuple[str, ...] = ()
        self.delivered = 0
        self.bringing: Subscribe | None = None
        self.replaying: list[Record] = []
        self.kept = 0
        self.waiting: list[Subscribe] = []
        self.skip_to = 0
        self.position: Position | None = None
        self.requested: Position | None = None
        self.drained = False
        self.owed: PendingBatch | None = None
        self.whole = False

    @property
    def since(self) -> Position | None:
        """From where the subscription that is being brought wants its past."""
        return None if self.bringing is None else self.bringing.since

    def wants(self, topic: str) -> bool:
        """Whether some pattern covers the topic."""
        return self.whole or covered(self.patterns, topic)

    @property
    def after(self) -> int | None:
        """Above which offset its log has to be read; None: not at all."""
        here = [self.delivered] if self.settled else []
        return min([*here, self.since.offset] if self.since is not None else here, default=None)

    def is_for(self, command: Subscribe, record: Record) -> bool:
        """Whether a subscription brings this event: not what an earlier one has brought, unless it asks for it."""
        if command.topic not in self.patterns:
            return False  # given up meanwhile
        return matches(command.topic, record.topic) and (
            command.since is not None or not covered(self.settled, record.topic)
        )


def covered(patterns: Iterable[str], topic: str) -> bool:
    """Whether one of the patterns covers the topic."""
    return any(matches(pattern, topic) for pattern in patterns)
