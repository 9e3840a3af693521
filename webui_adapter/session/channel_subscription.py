"""The subscription of one session to one channel, as a state machine. No I/O.

The session subscribes to topics of a channel. Each subscribe command asks for the past as well. That takes a reading
of the channel's history. Events that arrive meanwhile are buffered, and delivered after that reading:

    LIVE ── SUBSCRIBE ──> RECOVERING ── RECOVERED ──> LIVE        a new subscription begins in RECOVERING
    LIVE ── OVERFLOW ───> BEHIND ────── RECOVERED ──> LIVE        the client was too slow for the send queue

``PAGE`` leaves the state as it is: a long history is delivered in pages. So does ``OVERFLOW`` during a recovery: its
next reading begins earlier. Everything that only matters while a history is being read is in ``Recovery``, which exists
in RECOVERING and BEHIND only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Final

from eventbus.backends.pending import PendingBatch
from eventbus.protocol.cursor import Position
from eventbus.protocol.records import Record
from eventbus.protocol.recovery import Resumption
from eventbus.protocol.topics import channel_of, matches, whole_channel
from webui_adapter.protocol.commands import Subscribe

__all__ = ["TRANSITIONS", "Change", "ChannelState", "ChannelSubscription", "Recovery", "covered"]


class ChannelState(Enum):
    """How a session reads a channel at the moment."""

    LIVE = auto()
    """Events are delivered as they arrive."""
    RECOVERING = auto()
    """The history for a subscribe command is being read. Live events are buffered."""
    BEHIND = auto()
    """The send queue overflowed, so the history is read again from what the client has. Live events are buffered."""


class Change(Enum):
    """A change of a subscription's state."""

    SUBSCRIBE = auto()
    """The client subscribes to one more topic of the channel."""
    OVERFLOW = auto()
    """The send queue had no room for an event of the channel."""
    PAGE = auto()
    """A page of the history was delivered, and there are more."""
    RECOVERED = auto()
    """The history was delivered up to the live events."""


TRANSITIONS: Final[Mapping[tuple[ChannelState, Change], ChannelState]] = {
    (ChannelState.LIVE, Change.SUBSCRIBE): ChannelState.RECOVERING,
    (ChannelState.LIVE, Change.OVERFLOW): ChannelState.BEHIND,
    (ChannelState.RECOVERING, Change.OVERFLOW): ChannelState.RECOVERING,
    (ChannelState.RECOVERING, Change.PAGE): ChannelState.RECOVERING,
    (ChannelState.RECOVERING, Change.RECOVERED): ChannelState.LIVE,
    (ChannelState.BEHIND, Change.OVERFLOW): ChannelState.BEHIND,
    (ChannelState.BEHIND, Change.PAGE): ChannelState.BEHIND,
    (ChannelState.BEHIND, Change.RECOVERED): ChannelState.LIVE,
}
"""Every change that is possible. Others are bugs: a recovering subscription queues commands."""


@dataclass(slots=True)
class Recovery:
    """A history that is being read, and what arrives meanwhile.

    Attributes:
        command: The subscribe command. Its ``since`` is where the next page begins; None asks for the present state.
        recovered_topics: Topics that the client had before. They continue from ``delivered_offset``.
        delivered_offset: The client has the events of ``recovered_topics`` up to here.
        buffered_live: Live events that arrived since, ascending. Emptied when they are too many: then a later reading
            has them all.
        buffered_bytes: The size of ``buffered_live`` in bytes.
    """

    command: Subscribe
    recovered_topics: tuple[str, ...] = ()
    delivered_offset: int = 0
    buffered_live: list[Record] = field(default_factory=list)
    buffered_bytes: int = 0

    @property
    def since(self) -> Position | None:
        """Where the history begins; None: the client asks for the present state."""
        return self.command.since

    @property
    def after(self) -> int | None:
        """The offset above which the log has to be read; None: not at all."""
        offsets = [self.delivered_offset] if self.recovered_topics else []
        if self.command.since is not None:
            offsets.append(self.command.since.offset)
        return min(offsets, default=None)

    def buffer(self, record: Record, limit_events: int, limit_bytes: int) -> None:
        """Keep a live event until the history is delivered.

        Args:
            record: The event.
            limit_events: How many events to keep.
            limit_bytes: How many bytes of events to keep.
        """
        self.buffered_bytes += record.size
        if len(self.buffered_live) >= limit_events or self.buffered_bytes > limit_bytes:
            self.buffered_live.clear()
        if not self.buffered_live:
            self.buffered_bytes = record.size
        self.buffered_live.append(record)


class ChannelSubscription:
    """The subscription of one session to one channel.

    Attributes:
        patterns: The topics, as subscribed.
        whole: One of them covers the whole channel.
        state: How the session reads the channel at the moment.
        recovery: The history that is being read; None in LIVE.
        queued_commands: Subscribe commands that wait until this one is recovered.
        live_after: Live events up to this offset were in the history already.
        pending: The user's pending events, which are delivered before the rest of the history.
        pending_fetched: The pending events were read, so they are not read again.
    """

    __slots__ = (
        "live_after",
        "patterns",
        "pending",
        "pending_fetched",
        "queued_commands",
        "recovery",
        "state",
        "whole",
    )

    def __init__(self, command: Subscribe) -> None:
        """Begin in RECOVERING.

        Args:
            command: The first subscribe command of the channel.
        """
        self.patterns: tuple[str, ...] = (command.topic,)
        self.whole = command.topic == whole_channel(channel_of(command.topic))
        self.state = ChannelState.RECOVERING
        self.recovery: Recovery | None = Recovery(command)
        self.queued_commands: tuple[Subscribe, ...] = ()
        self.live_after = 0
        self.pending: PendingBatch | None = None
        self.pending_fetched = False

    def _change(self, change: Change, recovery: Recovery | None) -> None:
        state = TRANSITIONS.get((self.state, change))
        if state is None:
            raise AssertionError(f"a channel subscription that is {self.state.name} cannot take {change.name}")
        self.state = state
        self.recovery = recovery

    # --- topics ----------------------------------------------------------------------------------------------

    @property
    def recovered_topics(self) -> tuple[str, ...]:
        """The topics whose history the client has."""
        return self.patterns if self.recovery is None else self.recovery.recovered_topics

    def covers(self, topic: str) -> bool:
        """Return whether one of the patterns covers a topic.

        Args:
            topic: The topic of an event.
        """
        return self.whole or covered(self.patterns, topic)

    def subscribe(self, command: Subscribe, here: int) -> None:
        """Add a topic: LIVE becomes RECOVERING.

        Args:
            command: The subscribe command.
            here: The offset up to which the client has the events of its other topics.
        """
        self._change(Change.SUBSCRIBE, Recovery(command, self.patterns, here))
        if command.topic not in self.patterns:
            self.patterns += (command.topic,)
        self.whole = self.whole or command.topic == whole_channel(channel_of(command.topic))

    def unsubscribe(self, pattern: str) -> None:
        """Take a topic away, and the commands that wait for it. A recovery continues for the other topics.

        Args:
            pattern: The topic, as subscribed.
        """
        self.queued_commands = tuple(command for command in self.queued_commands if command.topic != pattern)
        self.patterns = tuple(one for one in self.patterns if one != pattern)
        self.whole = whole_channel(channel_of(pattern)) in self.patterns
        if self.recovery is not None:
            topics = self.recovery.recovered_topics
            self.recovery.recovered_topics = tuple(topic for topic in topics if topic != pattern)

    # --- recovery --------------------------------------------------------------------------------------------

    def overflow(self, since: Position) -> bool:
        """Read the history again from what the client has: LIVE becomes BEHIND. A recovery reads from there as well.

        Args:
            since: The client has everything up to here.

        Returns:
            Whether a recovery begins; False if one is under way.
        """
        begins = self.recovery is None
        recovery = self.recovery or Recovery(Subscribe(self.patterns[0], since), self.patterns, since.offset)
        recovery.delivered_offset = min(recovery.delivered_offset, since.offset)
        self._change(Change.OVERFLOW, recovery)
        return begins

    def take_history(self, found: Resumption, for_recovered: Resumption | None) -> Resumption:
        """Take a reading of the history, or a page of it: the state is LIVE after the last one.

        Args:
            found: The result of ``resume`` for the command.
            for_recovered: Its result for the topics that the client had before; None if there are none.

        Returns:
            The events to deliver: of each topic those that the client does not have.
        """
        recovery = self.recovery
        assert recovery is not None
        records = {record.offset: record for record in found.records if self._asks_for(recovery, record)}
        start, gap = found.start, found.gap
        if for_recovered is not None:
            kept = (record for record in for_recovered.records if covered(recovery.recovered_topics, record.topic))
            records |= {record.offset: record for record in kept}
            start = min(start, for_recovered.start, key=lambda position: position.offset)
            gap = gap or for_recovered.gap
        if found.more:
            recovery.command = replace(recovery.command, since=found.position, ref=None)
            if recovery.recovered_topics:
                recovery.delivered_offset = found.position.offset
            self._change(Change.PAGE, recovery)
        else:
            self.live_after = found.position.offset
            self._change(Change.RECOVERED, None)
        ordered = [records[offset] for offset in sorted(records)]
        return replace(found, start=start, records=ordered, gap=gap)

    def _asks_for(self, recovery: Recovery, record: Record) -> bool:
        command = recovery.command
        if command.topic not in self.patterns:
            return False  # unsubscribed meanwhile
        # A topic that the client had before comes again only for a command that names a position.
        return matches(command.topic, record.topic) and (
            command.since is not None or not covered(recovery.recovered_topics, record.topic)
        )

    def restart(self, position: Position) -> None:
        """Continue from a position: the channel has lost events, and the client has its present state.

        Args:
            position: The client is here now.
        """
        if self.recovery is None:
            self.live_after = position.offset
            return
        if self.recovery.recovered_topics:
            self.recovery.delivered_offset = position.offset
        # The command waits for a later reading, which earlier events do not join.
        self.recovery.buffered_live.clear()

    def end_epoch(self) -> None:
        """Continue at the beginning of the channel's next epoch."""
        self.live_after = 0
        if self.recovery is not None:
            self.recovery.delivered_offset = 0
            self.recovery.buffered_live.clear()


def covered(patterns: Iterable[str], topic: str) -> bool:
    """Return whether one of some patterns covers a topic.

    Args:
        patterns: Topics, as subscribed.
        topic: The topic of an event.
    """
    return any(matches(pattern, topic) for pattern in patterns)
