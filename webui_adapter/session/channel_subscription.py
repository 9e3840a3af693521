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
        settled: those of them whose past has been handed over, up to ``delivered_offset``.
        bringing: the subscription that is being brought up to date; None once that is over.
        buffered_bytes: bytes of ``buffered_live``.
        replaying: live events that came meanwhile.
        queued_commands: subscriptions of this channel that come after that.
        skip_to: live events up to this offset were in the history already.
        drained: whether what the user is pending has been read.
        pending: what that was, until it is handed over.
        requested: where it asked to resume; that stays its cursor until the replay begins.
    """

    __slots__ = (
        "buffered_bytes",
        "buffered_live",
        "delivered_offset",
        "live_after",
        "patterns",
        "pending",
        "pending_fetched",
        "queued_commands",
        "recovered_topics",
        "recovering",
        "whole",
    )

    def __init__(self) -> None:
        self.patterns: dict[str, None] = {}
        self.recovered_topics: tuple[str, ...] = ()
        self.delivered_offset = 0
        self.recovering: Subscribe | None = None
        self.buffered_live: list[Record] = []
        self.buffered_bytes = 0
        self.queued_commands: list[Subscribe] = []
        self.live_after = 0
        self.pending_fetched = False
        self.pending: PendingBatch | None = None
        self.whole = False

    @property
    def since(self) -> Position | None:
        """From where the subscription that is being brought wants its past."""
        return None if self.recovering is None else self.recovering.since

    def covers(self, topic: str) -> bool:
        """Whether some pattern covers the topic."""
        return self.whole or covered(self.patterns, topic)

    @property
    def after(self) -> int | None:
        """Above which offset its log has to be read; None: not at all."""
        here = [self.delivered_offset] if self.recovered_topics else []
        return min([*here, self.since.offset] if self.since is not None else here, default=None)

    def needs(self, command: Subscribe, record: Record) -> bool:
        """Whether a subscription brings this event: not what an earlier one has brought, unless it asks for it."""
        if command.topic not in self.patterns:
            return False  # given up meanwhile
        return matches(command.topic, record.topic) and (
            command.since is not None or not covered(self.recovered_topics, record.topic)
        )


def covered(patterns: Iterable[str], topic: str) -> bool:
    """Whether one of the patterns covers the topic."""
    return any(matches(pattern, topic) for pattern in patterns)
