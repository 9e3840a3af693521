"""The replay of one subscription: pending events and history are read, joined with live events and delivered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import partial
from typing import TypeVar

from eventbus.clock import Clock
from eventbus.errors import InvalidRecord, TransportError
from eventbus.flow.backoff import jitter
from eventbus.protocol.cursor import Position
from eventbus.protocol.history import History
from eventbus.protocol.recovery import resume
from webui_adapter.channels.channel import Channel
from webui_adapter.channels.channel_recovery import PAUSE_MAX, ChannelRecovery
from webui_adapter.channels.history_reader import HistoryRange, HistoryReader, range_for
from webui_adapter.channels.hub import Hub
from webui_adapter.channels.redelivery import RedeliveryScheduler
from webui_adapter.protocol.close_codes import CloseCode
from webui_adapter.session.channel_subscription import ChannelSubscription, Recovery
from webui_adapter.session.session import Session
from webui_adapter.session.states import State

__all__ = ["HistoryReplay", "Join", "Target"]

T = TypeVar("T")

log = logging.getLogger(__name__)

_READ_TRIES = 8
_EPOCH_MISMATCHES = 3


class Join(Enum):
    """The result of joining a reading with the live events."""

    DONE = auto()
    """The subscription is live, or the session no longer needs the history."""
    NEXT_PAGE = auto()
    """A page was delivered; the log has more."""
    NOT_LIVE = auto()
    """The channel is being recovered itself."""
    OTHER_EPOCH = auto()
    """The reading is of another epoch than the live events."""
    PENDING_FIRST = auto()
    """The user may have pending events, which come before the history."""
    STALE = auto()
    """The reading is older than the live events, does not join them without a hole, or begins too late."""


@dataclass(frozen=True, slots=True)
class Target:
    """One subscription of one session, and its channel.

    Attributes:
        session: The session.
        channel: The channel.
        subscription: The session's subscription of the channel.
    """

    session: Session
    channel: Channel
    subscription: ChannelSubscription

    @property
    def recovery(self) -> Recovery | None:
        """The recovery that waits for a history; None if the session no longer needs one."""
        session, subscription = self.session, self.subscription
        current = session.subscriptions.channels.get(self.channel.name) is subscription
        return subscription.recovery if current and session.state is not State.CLOSED else None


class HistoryReplay:
    """Replays the history to subscriptions of one gateway."""

    def __init__(
        self,
        hub: Hub,
        history_reader: HistoryReader,
        channel_recovery: ChannelRecovery,
        redelivery: RedeliveryScheduler | None,
        clock: Clock,
        on_recovered: Callable[[Session, ChannelSubscription], None],
    ) -> None:
        """Begin with nothing to replay.

        Args:
            hub: The channels.
            history_reader: Reads a channel's history.
            channel_recovery: Recovers channels that are not live.
            redelivery: The pending events of users; None where there are none.
            clock: The gateway's clock.
            on_recovered: Called when a subscription has become live.
        """
        self._hub = hub
        self._history_reader = history_reader
        self._channel_recovery = channel_recovery
        self._redelivery = redelivery
        self._clock = clock
        self._on_recovered = on_recovered

    def replay_now(self, target: Target, history: History | None = None) -> bool:
        """Replay without waiting for anything, if that is possible: a task costs more than all the rest.

        Args:
            target: The subscription. Its channel is live.
            history: A reading to try first.

        Returns:
            Whether it is done.
        """
        session = target.session
        if session.state is State.CLOSED or not session.output.idle or self._may_have_pending(target):
            return False
        if history is not None and self._join(target, history) is Join.DONE:
            return True
        return self._replay_from_memory(target)

    async def replay(self, target: Target) -> None:
        """Read the history until it joins the live events, and deliver it.

        Both happen only while the client accepts data: a client that does not read cannot fill the memory by asking.

        Args:
            target: The subscription.
        """
        tries = mismatches = 0
        while True:
            await self._fetch_pending(target)
            if await _when_idle(target.session, partial(self._replay_from_memory, target)):
                return
            if tries == _READ_TRIES and target.channel.live:
                reason = "history and live events did not join up; resume with the cursor"
                target.session.close(CloseCode.TOO_SLOW, reason)
                return
            read = range_for(target.session, target.subscription)
            history = await self._read(target, read)
            if history is None:
                continue
            tries += 1
            match await _when_idle(target.session, partial(self._join, target, history, read)):
                case Join.DONE:
                    return
                case Join.NEXT_PAGE:
                    tries = mismatches = 0
                case Join.OTHER_EPOCH:
                    mismatches += 1
                case Join.NOT_LIVE | Join.PENDING_FIRST | Join.STALE:
                    mismatches = 0
            if mismatches == _EPOCH_MISMATCHES:
                # A publication may be on its way that explains the other epoch. Three readings have not seen one.
                self._channel_recovery.resync(target.channel, history.position)

    async def _read(self, target: Target, read: HistoryRange) -> History | None:
        """Read the history of a live channel; None if it could not be read now."""
        name = target.channel.name
        if not target.channel.live:
            await self._channel_recovery.wait_until_live(target.channel)
            return None
        try:
            return await self._history_reader.read_shared(name, read)
        except (TransportError, InvalidRecord) as error:
            # However long Redis is down, the session waits: it knows the reason.
            log.warning("cannot read the history of %s: %s", name, error)
            await _pause()
            return None

    # --- pending events --------------------------------------------------------------------------------------

    def _may_have_pending(self, target: Target) -> bool:
        """Return whether the session's user may have pending events that this subscription has not fetched."""
        session, name, subscription = target.session, target.channel.name, target.subscription
        assert session.principal is not None
        if name != f"user:{session.principal.user}" or self._redelivery is None or subscription.pending_fetched:
            return False
        if not self._redelivery.has_none(name):
            return True
        # An event that has just arrived may not be known there yet.
        recovery = subscription.recovery
        return recovery is not None and any(record.ack for record in recovery.buffered_live)

    async def _fetch_pending(self, target: Target) -> None:
        """Read the pending events. The channel is live by then, so later ones arrive as live events."""
        name, subscription = target.channel.name, target.subscription
        while self._redelivery is not None and target.recovery is not None and self._may_have_pending(target):
            if not target.channel.live:
                await self._channel_recovery.wait_until_live(target.channel)
                continue
            try:
                pending = await self._redelivery.fetch(name)
            except (TransportError, InvalidRecord) as error:
                log.warning("cannot read pending events of %s: %s", name, error)
                await _pause()
                continue
            subscription.pending = replace(pending, records=self._hub.validator.deliverable(name, pending.records))
            subscription.pending_fetched = True

    # --- joining ---------------------------------------------------------------------------------------------

    def _replay_from_memory(self, target: Target) -> bool:
        """Replay without a reading: for a cursor that is up to date, or from the reading that opened the channel."""
        recovery = target.recovery
        if recovery is None:
            return True
        history = target.channel.history
        if recovery.recovered_topics and recovery.delivered_offset < target.channel.offset:
            return False  # the log has events that neither the client nor the memory has
        if recovery.since is not None and recovery.since == target.channel.position:
            history = History(recovery.since, 0, (), ())
        elif recovery.since is not None or history is None:
            return False
        return self._join(target, history) is Join.DONE

    def _join(self, target: Target, history: History, read: HistoryRange | None = None) -> Join:
        """Join a reading with the live events, and deliver both. ``read`` is its range; None: from memory."""
        channel, subscription, recovery = target.channel, target.subscription, target.recovery
        if recovery is None:
            return Join.DONE
        if _has_later_pending(subscription, recovery, history):
            subscription.pending_fetched = False
        if not channel.live:
            return Join.NOT_LIVE
        if channel.position is not None and history.position.epoch != channel.position.epoch:
            return Join.OTHER_EPOCH
        # A new reader gets no past from the reading, so its pending events have to be fetched.
        if self._may_have_pending(target):
            return Join.PENDING_FIRST
        pending = subscription.pending
        if pending is not None and pending.records and pending.position.epoch != history.position.epoch:
            subscription.pending_fetched = False
            return Join.PENDING_FIRST
        return self._deliver(target, recovery, history, read)

    def _deliver(self, target: Target, recovery: Recovery, history: History, read: HistoryRange | None) -> Join:
        session, channel, subscription = target.session, target.channel, target.subscription
        now_ms = self._clock.server_ms()
        found = resume(recovery.since, history, recovery.buffered_live, now_ms)
        stale = found.position.offset < channel.offset and not found.more
        if read is not None and read != range_for(session, subscription):
            stale = True  # the send queue overflowed meanwhile, so the history has to begin earlier
        if stale or (found.gap is not None and found.gap.reason == "hole"):
            return Join.STALE
        for_recovered = None
        if recovery.recovered_topics:
            before = Position(history.position.epoch, recovery.delivered_offset)
            for_recovered = resume(before, history, recovery.buffered_live, now_ms)
        session.subscriptions.replay(channel.name, found, for_recovered)
        if found.more:
            return Join.NEXT_PAGE
        self._hub.mark_live(channel.name, session)
        self._on_recovered(session, subscription)
        return Join.DONE


def _has_later_pending(subscription: ChannelSubscription, recovery: Recovery, history: History) -> bool:
    """Return whether a new reader's history holds an event that became pending after the pending events were read."""
    fetched = {record.offset for record in subscription.pending.records} if subscription.pending is not None else set()
    here = history.position.offset
    return recovery.since is None and any(
        record.ack and record.offset <= here and record.offset not in fetched for record in recovery.buffered_live
    )


async def _pause() -> None:
    await asyncio.sleep(jitter(PAUSE_MAX))


async def _when_idle(session: Session, work: Callable[[], T]) -> T:
    """Do something in the session's next idle moment, in that moment. Return its result."""
    done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def do() -> None:
        if not done.done():
            done.set_result(work())

    session.output.call_when_idle(do)
    return await done
