"""Bringing sessions up to date: one that comes, or comes back, gets what it has missed, joined with what is live."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from eventbus.backends.ports import Subscriber
from eventbus.errors import InvalidRecord, TransportError
from eventbus.flow.backoff import jitter
from eventbus.protocol.cursor import Position
from eventbus.protocol.history import History
from eventbus.protocol.recovery import resume
from eventbus.protocol.topics import channel_of
from webui_adapter.channels.channel import Channel
from webui_adapter.channels.channel_recovery import PAUSE_MAX, ChannelRecovery
from webui_adapter.channels.history_reader import SNAPSHOT_ONLY, HistoryRange, HistoryReader, range_for
from webui_adapter.channels.hub import Hub
from webui_adapter.channels.redelivery import RedeliveryScheduler
from webui_adapter.context import GatewayContext
from webui_adapter.protocol.close_codes import CloseCode
from webui_adapter.protocol.commands import Subscribe
from webui_adapter.session.channel_subscription import ChannelSubscription
from webui_adapter.session.session import Session
from webui_adapter.session.states import State

__all__ = ["SessionRecovery"]

log = logging.getLogger(__name__)

_READ_TRIES = 8
_MISFITS = 3


class SessionRecovery:
    """Works for one gateway.

    ``changed`` is called when sessions have something to write.

    Attributes:
        repairs: of the channels; a session waits for its channel's, and is served from it.
    """

    def __init__(
        self,
        context: GatewayContext,
        hub: Hub,
        subscriber: Subscriber,
        history_reader: HistoryReader,
        redelivery: RedeliveryScheduler | None,
        changed: Callable[[], None],
    ) -> None:
        self._hub = hub
        self._subscriber = subscriber
        self._history_reader = history_reader
        self._clock = context.clock
        self._spawn = context.spawn
        self._changed = changed
        self._redelivery = redelivery
        # Who came while their channel was on repair: they are served when it is live.
        self._waiting_sessions: dict[str, list[tuple[Session, ChannelSubscription]]] = {}
        self.channel_recovery = ChannelRecovery(context, hub, subscriber, history_reader, redelivery, changed, self)

    # --- sessions --------------------------------------------------------------------------------------------

    def subscribe(self, session: Session, command: Subscribe) -> None:
        """Begin a subscription: at once where nothing has to be waited for, since a task costs more than all the rest.

        Those of one channel are brought one after another: each has its own place to begin, and its own answer.
        """
        name = channel_of(command.topic)
        subscription = session.subscriptions.channels.get(name)
        if subscription is not None and subscription.recovering is not None:
            subscription.queued_commands.append(command)
            return
        known = self._hub.channels.get(name)
        subscription = session.subscriptions.add(command, known.offset if known else 0)
        channel = self._hub.join(name, session)
        if channel.live:
            self._begin(session, channel, subscription)
        else:
            self._waiting_sessions.setdefault(name, []).append((session, subscription))
            self.channel_recovery.recover(channel)

    def _begin(
        self, session: Session, channel: Channel, subscription: ChannelSubscription, history: History | None = None
    ) -> None:
        """Serve a subscription of a channel that is live: from a reading, from memory, or by a task that reads."""
        if session.state is not State.CLOSED and session.output.idle and not self._owes(session, channel, subscription):
            if history is not None and self._hand_over(session, channel, subscription, history):
                return
            if self._replay_at_once(session, channel, subscription):
                return
        self._spawn(self._replay(session, channel, subscription))

    def recover_behind(self) -> None:
        """Begin to read for sessions whose backlog was full; they get it when they take again."""
        behind, self._hub.behind[:] = self._hub.behind[:], ()
        for session, name in behind:
            subscription = session.subscriptions.channels.get(name)
            channel = self._hub.channels.get(name)
            if subscription is not None and channel is not None and subscription.recovering is not None:
                self._spawn(self._replay(session, channel, subscription))

    def unsubscribe(self, session: Session, pattern: str) -> None:
        """End a subscription. If it was the channel's last one, those that waited for it have their turn."""
        subscription = session.subscriptions.remove(pattern)
        if subscription is not None:
            self.leave(channel_of(pattern), session)
            for command in subscription.queued_commands:
                self.subscribe(session, command)

    def leave(self, name: str, session: Session) -> None:
        """The session reads the channel no longer; the last one closes it."""
        session.subscriptions.drop(name)
        unused = self._hub.leave(name, session)
        if unused is not None:
            self._hub.remove(unused)
            if self._redelivery is not None:
                self._redelivery.forget(name)
            self._waiting_sessions.pop(name, None)
            self._subscriber.unsubscribe(name)
            self.channel_recovery.forget(name)

    async def _replay(self, session: Session, channel: Channel, subscription: ChannelSubscription) -> None:
        """Read history until it joins up with what is live, and hand it over.

        Both only in a moment when the browser takes it: who does not read shall not fill the memory by asking.
        """
        tries = misfits = 0
        while True:
            await self._drain(session, channel, subscription)
            if await _when_idle(session, partial(self._replay_at_once, session, channel, subscription)):
                break
            if not channel.live:
                await self.channel_recovery.wait_until_live(channel)
                continue
            if tries == _READ_TRIES:
                session.close(CloseCode.TOO_SLOW, "history and live events did not join up; resume with the cursor")
                break
            try:
                history = await self._history_reader.read_shared(channel.name, range_for(session, subscription))
            except (TransportError, InvalidRecord) as error:
                # However long Redis is away: the session waits, and has been told why.
                log.warning("history of %s cannot be read: %s", channel.name, error)
                await asyncio.sleep(jitter(PAUSE_MAX))
                continue
            tries, since = tries + 1, subscription.since
            if await _when_idle(session, partial(self._hand_over, session, channel, subscription, history)):
                break
            if subscription.since != since:
                tries = 0  # a page of it has been handed over
                continue
            # A publication may be on its way that explains it; three readings in a row did not see one.
            misfits = misfits + 1 if _of_another_life(channel, history) else 0
            if misfits == _MISFITS:
                self.channel_recovery.resync(channel, history.position)
        self._changed()

    def _owes(self, session: Session, channel: Channel, subscription: ChannelSubscription) -> bool:
        """Whether there may be something that this session's user has never acknowledged."""
        assert session.principal is not None
        mine = channel.name == f"user:{session.principal.user}"
        if not mine or self._redelivery is None or subscription.pending_fetched:
            return False
        # What has just come live may not have been noted yet.
        return not self._redelivery.has_none(channel.name) or any(record.ack for record in subscription.buffered_live)

    async def _drain(self, session: Session, channel: Channel, subscription: ChannelSubscription) -> None:
        """Read what the user is owed: it is handed over before the rest of the channel.

        The channel is live by then: what comes to be owed later is heard of.
        """
        while (
            self._redelivery is not None
            and _wanted(session, channel, subscription)
            and self._owes(session, channel, subscription)
        ):
            if not channel.live:
                await self.channel_recovery.wait_until_live(channel)
                continue
            try:
                owed = await self._redelivery.fetch(channel.name)
            except (TransportError, InvalidRecord) as error:
                log.warning("what is owed on %s cannot be read: %s", channel.name, error)
                await asyncio.sleep(jitter(PAUSE_MAX))
                continue
            subscription.pending = replace(owed, records=self._hub.validator.deliverable(channel.name, owed.records))
            subscription.pending_fetched = True

    def _replay_at_once(self, session: Session, channel: Channel, subscription: ChannelSubscription) -> bool:
        """Serve from memory: a cursor that is up to date, or a newcomer where nothing has happened since."""
        position, history = channel.position, channel.history
        if subscription.since is not None and subscription.since == position:
            history = History(subscription.since, 0, (), ())
        elif subscription.since is not None or history is None:
            return not _wanted(session, channel, subscription)
        return self._hand_over(session, channel, subscription, history)

    def _hand_over(
        self, session: Session, channel: Channel, subscription: ChannelSubscription, history: History
    ) -> bool:
        """Merge and send; False if the reading is older than what was live already, or does not join up with it."""
        if not _wanted(session, channel, subscription):
            return True
        if _has_overtaken(subscription, history):
            subscription.pending_fetched = False
        # A newcomer gets no past from the reading: what is owed of it has to be asked for.
        if not channel.live or _of_another_life(channel, history) or self._owes(session, channel, subscription):
            return False
        if (
            subscription.pending is not None
            and subscription.pending.records
            and subscription.pending.position.epoch != history.position.epoch
        ):
            subscription.pending_fetched = False  # of another life than the history: once more
            return False
        now_ms = int(self._clock.wall() * 1000)
        resumption = resume(subscription.since, history, subscription.buffered_live, now_ms)
        stale = resumption.position.offset < channel.offset and not resumption.more
        if stale or (resumption.gap is not None and resumption.gap.reason == "hole"):
            return False
        kept = None
        if subscription.recovered_topics:
            before = Position(history.position.epoch, subscription.delivered_offset)
            kept = resume(before, history, subscription.buffered_live, now_ms)
        session.subscriptions.replay(channel.name, resumption, kept)
        if resumption.more:
            return False
        self._hub.mark_live(channel.name, session)
        if subscription.queued_commands:
            self.subscribe(session, subscription.queued_commands.pop(0))
        return True

    # --- newcomers -------------------------------------------------------------------------------------------

    def first_range(self, channel: Channel) -> HistoryRange:
        """See ``WaitingSessions``. A returning session is most often the only one: this spares a second reading."""
        for session, subscription in self._waiting_sessions.get(channel.name, ()):
            if subscription.after is not None:
                return range_for(session, subscription)
        return SNAPSHOT_ONLY

    def channel_recovered(self, channel: Channel, history: History | None, read: HistoryRange) -> None:
        """See ``WaitingSessions``."""
        for session, subscription in self._waiting_sessions.pop(channel.name, ()):
            fits = read.after is not None and range_for(session, subscription) == read
            self._begin(session, channel, subscription, history if fits else None)


def _wanted(session: Session, channel: Channel, subscription: ChannelSubscription) -> bool:
    """Whether the view is still the session's, and waits for its history."""
    return (
        session.state is not State.CLOSED
        and session.subscriptions.channels.get(channel.name) is subscription
        and subscription.recovering is not None
    )


def _has_overtaken(subscription: ChannelSubscription, history: History) -> bool:
    """Whether a newcomer's reading holds something owed that came live after it was asked what is owed."""
    asked = {record.offset for record in subscription.pending.records} if subscription.pending is not None else set()
    here = history.position.offset
    return subscription.since is None and any(
        r.ack and r.offset <= here and r.offset not in asked for r in subscription.buffered_live
    )


def _of_another_life(channel: Channel, history: History) -> bool:
    return channel.position is not None and history.position.epoch != channel.position.epoch


async def _when_idle(session: Session, work: Callable[[], bool]) -> bool:
    """Do something in the session's next idle moment, in that moment; its result."""
    done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def do() -> None:
        if not done.done():
            done.set_result(work())

    session.output.call_when_idle(do)
    return await done
