"""Bringing sessions up to date: one that comes, or comes back, gets what it has missed, joined with what is live."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial

from eventbus.backends.ports import Subscriber
from eventbus.errors import InvalidRecord, TransportError
from eventbus.protocol.cursor import Position
from eventbus.protocol.history import History
from eventbus.protocol.recovery import resume
from eventbus.protocol.topics import channel_of
from webui_adapter.channels.channel import Channel
from webui_adapter.channels.channel_recovery import PAUSE_MAX, ChannelRecovery
from webui_adapter.channels.history_reader import NO_PAST, HistoryRange, HistoryReader, extent
from webui_adapter.channels.hub import Hub
from webui_adapter.channels.redelivery import RedeliveryScheduler
from webui_adapter.clock import Clock
from webui_adapter.protocol.close_codes import CloseCode
from webui_adapter.protocol.commands import Subscribe
from webui_adapter.session.channel_view import ChannelSubscription
from webui_adapter.session.session import Session
from webui_adapter.session.states import State

__all__ = ["SessionRecovery"]

log = logging.getLogger(__name__)

_READ_TRIES = 8
_MISFITS = 3


class SessionRecovery:
    """Works for one gateway.

    ``spawn`` runs a coroutine, ``changed`` is called when sessions have something to write.

    Attributes:
        repairs: of the channels; a session waits for its channel's, and is served from it.
    """

    def __init__(
        self,
        hub: Hub,
        subscriber: Subscriber,
        readings: HistoryReader,
        clock: Clock,
        spawn: Callable[[Coroutine[object, object, None]], None],
        changed: Callable[[], None],
        letterbox: RedeliveryScheduler | None = None,
    ) -> None:
        self._hub = hub
        self._subscriber = subscriber
        self._readings = readings
        self._clock = clock
        self._spawn = spawn
        self._changed = changed
        self._letterbox = letterbox
        # Who came while their channel was on repair: they are served when it is live.
        self._newcomers: dict[str, list[tuple[Session, ChannelSubscription]]] = {}
        self.repairs = ChannelRecovery(hub, subscriber, readings, clock, self, changed, letterbox)

    # --- sessions --------------------------------------------------------------------------------------------

    def subscribe(self, session: Session, command: Subscribe) -> None:
        """Begin a subscription: at once where nothing has to be waited for, since a task costs more than all the rest.

        Those of one channel are brought one after another: each has its own place to begin, and its own answer.
        """
        name = channel_of(command.topic)
        view = session.views.get(name)
        if view is not None and view.bringing is not None:
            view.waiting.append(command)
            return
        known = self._hub.channels.get(name)
        view = session.watch(command, known.offset if known else 0)
        channel = self._hub.join(name, session)
        if channel.live:
            self._begin(session, channel, view)
        else:
            self._newcomers.setdefault(name, []).append((session, view))
            self.repairs.repair(channel)

    def _begin(
        self, session: Session, channel: Channel, view: ChannelSubscription, history: History | None = None
    ) -> None:
        """Serve a subscription of a channel that is live: from a reading, from memory, or by a task that reads."""
        if session.state is not State.CLOSED and session.idle and not self._owes(session, channel, view):
            if history is not None and self._hand_over(session, channel, view, history):
                return
            if self._replay_at_once(session, channel, view):
                return
        self._spawn(self._replay(session, channel, view))

    def read_behind(self) -> None:
        """Begin to read for sessions whose backlog was full; they get it when they take again."""
        behind, self._hub.behind[:] = self._hub.behind[:], ()
        for session, name in behind:
            view = session.views.get(name)
            channel = self._hub.channels.get(name)
            if view is not None and channel is not None and view.bringing is not None:
                self._hub.join(name, session)
                self._spawn(self._replay(session, channel, view))

    def unsubscribe(self, session: Session, pattern: str) -> None:
        """End a subscription. If it was the channel's last one, those that waited for it have their turn."""
        view = session.unwatch(pattern)
        if view is not None:
            self.leave(channel_of(pattern), session)
            for command in view.waiting:
                self.subscribe(session, command)

    def leave(self, name: str, session: Session) -> None:
        """The session reads the channel no longer; the last one closes it."""
        session.views.pop(name, None)
        deserted = self._hub.leave(name, session)
        if deserted is not None:
            self._hub.drop(deserted)
            if self._letterbox is not None:
                self._letterbox.forget(name)
            self._newcomers.pop(name, None)
            self._subscriber.unsubscribe(name)
            self.repairs.abandon(name)

    async def _replay(self, session: Session, channel: Channel, view: ChannelSubscription) -> None:
        """Read history until it joins up with what is live, and hand it over.

        Both only in a moment when the browser takes it: who does not read shall not fill the memory by asking.
        """
        tries = misfits = 0
        while True:
            await self._drain(session, channel, view)
            if await _when_idle(session, partial(self._replay_at_once, session, channel, view)):
                break
            if not channel.live:
                await self.repairs.live_again(channel)
                continue
            if tries == _READ_TRIES:
                session.close(CloseCode.TOO_SLOW, "history and live events did not join up; resume with the cursor")
                break
            try:
                history = await self._readings.shared(channel.name, extent(session, view))
            except (TransportError, InvalidRecord) as error:
                # However long Redis is away: the session waits, and has been told why.
                log.warning("history of %s cannot be read: %s", channel.name, error)
                await asyncio.sleep(random.uniform(0, PAUSE_MAX))  # noqa: S311 - spreads retries
                continue
            tries, since = tries + 1, view.since
            if await _when_idle(session, partial(self._hand_over, session, channel, view, history)):
                break
            if view.since != since:
                tries = 0  # a page of it has been handed over
                continue
            # A publication may be on its way that explains it; three readings in a row did not see one.
            misfits = misfits + 1 if _of_another_life(channel, history) else 0
            if misfits == _MISFITS:
                self.repairs.mend(channel, history.position)
        self._changed()

    def _owes(self, session: Session, channel: Channel, view: ChannelSubscription) -> bool:
        """Whether there may be something that this session's user has never acknowledged."""
        assert session.principal is not None
        mine = channel.name == f"user:{session.principal.user}"
        if not mine or self._letterbox is None or view.drained:
            return False
        # What has just come live may not have been noted yet.
        return not self._letterbox.empty(channel.name) or any(record.ack for record in view.replaying)

    async def _drain(self, session: Session, channel: Channel, view: ChannelSubscription) -> None:
        """Read what the user is owed: it is handed over before the rest of the channel.

        The channel is live by then: what comes to be owed later is heard of.
        """
        while self._letterbox is not None and _wanted(session, channel, view) and self._owes(session, channel, view):
            if not channel.live:
                await self.repairs.live_again(channel)
                continue
            try:
                owed = await self._letterbox.fetch(channel.name)
            except (TransportError, InvalidRecord) as error:
                log.warning("what is owed on %s cannot be read: %s", channel.name, error)
                await asyncio.sleep(random.uniform(0, PAUSE_MAX))  # noqa: S311 - spreads retries
                continue
            view.owed = replace(owed, records=self._hub.sieve.carried(channel.name, owed.records))
            view.drained = True

    def _replay_at_once(self, session: Session, channel: Channel, view: ChannelSubscription) -> bool:
        """Serve from memory: a cursor that is up to date, or a newcomer where nothing has happened since."""
        position, history = channel.position, channel.history
        if view.since is not None and view.since == position:
            history = History(view.since, 0, (), ())
        elif view.since is not None or history is None:
            return not _wanted(session, channel, view)
        return self._hand_over(session, channel, view, history)

    def _hand_over(self, session: Session, channel: Channel, view: ChannelSubscription, history: History) -> bool:
        """Merge and send; False if the reading is older than what was live already, or does not join up with it."""
        if not _wanted(session, channel, view):
            return True
        if _has_overtaken(view, history):
            view.drained = False
        # A newcomer gets no past from the reading: what is owed of it has to be asked for.
        if not channel.live or _of_another_life(channel, history) or self._owes(session, channel, view):
            return False
        if view.owed is not None and view.owed.records and view.owed.position.epoch != history.position.epoch:
            view.drained = False  # of another life than the history: once more
            return False
        now_ms = int(self._clock.wall() * 1000)
        resumption = resume(view.since, history, view.replaying, now_ms)
        stale = resumption.position.offset < channel.offset and not resumption.more
        if stale or (resumption.gap is not None and resumption.gap.reason == "hole"):
            return False
        kept = None
        if view.settled:
            before = Position(history.position.epoch, view.delivered)
            kept = resume(before, history, view.replaying, now_ms)
        session.replay(channel.name, resumption, kept)
        if resumption.more:
            return False
        self._hub.settle(channel.name, session)
        if view.waiting:
            self.subscribe(session, view.waiting.pop(0))
        return True

    # --- newcomers -------------------------------------------------------------------------------------------

    def first_extent(self, channel: Channel) -> HistoryRange:
        """See ``Newcomers``. Who comes back with a cursor is most often the only one: that spares a second reading."""
        for session, view in self._newcomers.get(channel.name, ()):
            if view.after is not None:
                return extent(session, view)
        return NO_PAST

    def serve(self, channel: Channel, history: History | None, read: HistoryRange) -> None:
        """See ``Newcomers``."""
        for session, view in self._newcomers.pop(channel.name, ()):
            fits = read.after is not None and extent(session, view) == read
            self._begin(session, channel, view, history if fits else None)


def _wanted(session: Session, channel: Channel, view: ChannelSubscription) -> bool:
    """Whether the view is still the session's, and waits for its history."""
    return session.state is not State.CLOSED and session.views.get(channel.name) is view and view.bringing is not None


def _has_overtaken(view: ChannelSubscription, history: History) -> bool:
    """Whether a newcomer's reading holds something owed that came live after it was asked what is owed."""
    asked = {record.offset for record in view.owed.records} if view.owed is not None else set()
    here = history.position.offset
    return view.since is None and any(r.ack and r.offset <= here and r.offset not in asked for r in view.replaying)


def _of_another_life(channel: Channel, history: History) -> bool:
    return channel.position is not None and history.position.epoch != channel.position.epoch


async def _when_idle(session: Session, work: Callable[[], bool]) -> bool:
    """Do something in the session's next idle moment, in that moment; its result."""
    done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def do() -> None:
        if not done.done():
            done.set_result(work())

    session.call_when_idle(do)
    return await done
