"""Bringing sessions and channels up to date: history is read, and joined with what is live.

A session that comes (or comes back) gets its own reading; a channel that has missed something is read once for all its
sessions, who notice nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial

from eventbus.cursor import Position
from eventbus.errors import InvalidRecord, TransportError
from eventbus.history import History, Page
from eventbus.resume import resume
from eventbus.topics import channel_of
from eventbus.transport import Reader, Subscriber
from webui_adapter.clock import Clock
from webui_adapter.closecodes import CloseCode
from webui_adapter.commands import Subscribe
from webui_adapter.hub import Channel, Hub
from webui_adapter.letterbox import Letterbox
from webui_adapter.session import Session
from webui_adapter.states import State
from webui_adapter.view import View

__all__ = ["CatchUp"]

log = logging.getLogger(__name__)

_READ_TRIES = 8
_MISFITS = 3
_PAUSE_MIN, _PAUSE_MAX = 0.1, 2.0
_REPAIRED_WITHIN = 10.0


class CatchUp:
    """Works for one gateway.

    ``spawn`` runs a coroutine, ``changed`` is called when sessions have something to write.

    Attributes:
        losses: how often the subscription was broken; a reading from before does not show what was lost meanwhile.
    """

    def __init__(
        self,
        hub: Hub,
        subscriber: Subscriber,
        reader: Reader,
        clock: Clock,
        spawn: Callable[[Coroutine[object, object, None]], None],
        changed: Callable[[], None],
        letterbox: Letterbox | None = None,
    ) -> None:
        self._hub = hub
        self._subscriber = subscriber
        self._reader = reader
        self._clock = clock
        self._spawn = spawn
        self._changed = changed
        self._letterbox = letterbox
        self._repairs: dict[str, asyncio.Task[None]] = {}
        self._readings: dict[tuple[str, int | None, Page | None], asyncio.Task[History]] = {}
        # Who came while their channel was on repair: they are served when it is live.
        self._newcomers: dict[str, list[tuple[Session, View]]] = {}
        self._doubted: set[str] = set()
        self.losses = 0

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
            self.repair(channel)

    def _begin(self, session: Session, channel: Channel, view: View, history: History | None = None) -> None:
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
            self._doubted.discard(name)
            self._subscriber.unsubscribe(name)
            repair = self._repairs.pop(name, None)
            if repair is not None:
                repair.cancel()

    async def _replay(self, session: Session, channel: Channel, view: View) -> None:
        """Read history until it joins up with what is live, and hand it over.

        Both only in a moment when the browser takes it: who does not read shall not fill the memory by asking.
        """
        tries = misfits = 0
        while True:
            await self._drain(session, channel, view)
            if await _when_idle(session, partial(self._replay_at_once, session, channel, view)):
                break
            if not channel.live:
                await self._live_again(channel)
                continue
            if tries == _READ_TRIES:
                session.close(CloseCode.TOO_SLOW, "history and live events did not join up; resume with the cursor")
                break
            try:
                history = await self._read(channel.name, view.after, _page(session, view))
            except (TransportError, InvalidRecord) as error:
                # However long Redis is away: the session waits, and has been told why.
                log.warning("history of %s cannot be read: %s", channel.name, error)
                await asyncio.sleep(random.uniform(0, _PAUSE_MAX))  # noqa: S311 - spreads retries
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
                self.mend(channel, history.position)
        self._changed()

    def _owes(self, session: Session, channel: Channel, view: View) -> bool:
        """Whether there may be something that this session's user has never acknowledged."""
        assert session.principal is not None
        mine = channel.name == f"user:{session.principal.user}"
        if not mine or self._letterbox is None or view.drained:
            return False
        # What has just come live may not have been noted yet.
        return not self._letterbox.empty(channel.name) or any(record.ack for record in view.replaying)

    async def _drain(self, session: Session, channel: Channel, view: View) -> None:
        """Read what the user is owed: it is handed over before the rest of the channel.

        The channel is live by then: what comes to be owed later is heard of.
        """
        while self._letterbox is not None and _wanted(session, channel, view) and self._owes(session, channel, view):
            if not channel.live:
                await self._live_again(channel)
                continue
            try:
                owed = await self._letterbox.fetch(channel.name)
            except (TransportError, InvalidRecord) as error:
                log.warning("what is owed on %s cannot be read: %s", channel.name, error)
                await asyncio.sleep(random.uniform(0, _PAUSE_MAX))  # noqa: S311 - spreads retries
                continue
            view.owed = replace(owed, records=self._hub.sieve.carried(channel.name, owed.records))
            view.drained = True

    def _replay_at_once(self, session: Session, channel: Channel, view: View) -> bool:
        """Serve from memory: a cursor that is up to date, or a newcomer where nothing has happened since."""
        position, history = channel.position, channel.history
        if view.since is not None and view.since == position:
            history = History(view.since, 0, (), ())
        elif view.since is not None or history is None:
            return not _wanted(session, channel, view)
        return self._hand_over(session, channel, view, history)

    def _hand_over(self, session: Session, channel: Channel, view: View, history: History) -> bool:
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

    async def _read(self, name: str, after: int | None, page: Page | None) -> History:
        """Read history once for all who ask for the same at the same time."""
        key = (name, after, page)
        task = self._readings.get(key)
        if task is None:
            task = self._readings[key] = asyncio.create_task(self._read_anew(name, after, page))
            task.add_done_callback(lambda _: self._readings.pop(key, None))
        return await asyncio.shield(task)

    async def _read_anew(self, name: str, after: int | None, page: Page | None) -> History:
        return self._hub.sieve.history(name, await self._reader.read(name, after, page))

    # --- channels --------------------------------------------------------------------------------------------

    def suspend_all(self) -> None:
        """The subscription is broken: nothing is live until it has been read."""
        self.losses += 1
        for channel in self._hub.channels.values():
            self._hub.suspend(channel)

    def repair_all(self) -> None:
        """The subscription is back: read what every channel has missed."""
        self.suspend_all()
        for channel in list(self._hub.channels.values()):
            self.repair(channel)

    def repair(self, channel: Channel) -> None:
        """Begin to bring a channel up to date, unless that is under way."""
        name = channel.name
        if name not in self._repairs:
            task = asyncio.create_task(self._repair(channel))
            self._repairs[name] = task
            task.add_done_callback(lambda done: self._repair_ended(name, done))

    def mend(self, channel: Channel, found: Position) -> None:
        """Redis has another position for a channel than we do, and nothing is on its way that explains it."""
        log.info("channel %s has position %s in Redis, %s here", channel.name, found, channel.position)
        if found.epoch:
            # Whatever the reason, maybe the server no longer counts us among those who listen.
            self._doubted.add(channel.name)
            self._hub.suspend(channel)
            self.repair(channel)
        else:
            self._hub.forgotten(channel)
            self._changed()

    async def repaired(self) -> None:
        """Wait until the channels that are on repair now are up to date; not for ever, one may be past repair."""
        if self._repairs:
            await asyncio.wait(list(self._repairs.values()), timeout=_REPAIRED_WITHIN)

    def cancel(self) -> None:
        """End everything that is under way."""
        for task in (*self._repairs.values(), *self._readings.values()):
            task.cancel()

    def position(self, name: str) -> Position | None:
        """Where a channel stands, if it is live here."""
        channel = self._hub.channels.get(name)
        return channel.position if channel is not None and channel.live else None

    async def _live_again(self, channel: Channel) -> None:
        self.repair(channel)
        await asyncio.wait([self._repairs[channel.name]])
        if not channel.live and self._hub.channels.get(channel.name) is channel:
            await asyncio.sleep(random.uniform(0, _PAUSE_MAX))  # noqa: S311 - spreads retries

    def _repair_ended(self, name: str, task: asyncio.Task[None]) -> None:
        if self._repairs.get(name) is task:
            del self._repairs[name]
        if task.cancelled():
            return
        channel = self._hub.channels.get(name)
        if task.exception() is not None:
            log.error("repair of %s failed", name, exc_info=task.exception())
        elif channel is not None and not channel.live:
            self.repair(channel)  # it fell ill again between the task's last step and this

    async def _repair(self, channel: Channel) -> None:
        pause = _PAUSE_MIN
        history, after, page = None, None, None
        while not channel.live:
            losses = self.losses
            try:
                if channel.position is None or channel.name in self._doubted:
                    await self._subscriber.subscribe(channel.name)
                    self._doubted.discard(channel.name)
                after, page = self._first_reading(channel)
                history = await self._read_anew(channel.name, after, page)
            except (TransportError, InvalidRecord) as error:
                log.info("channel %s cannot be read yet: %s", channel.name, error)
                await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 - spreads retries
                pause = min(pause * 2, _PAUSE_MAX)
                continue
            if losses != self.losses:
                continue
            resumption = self._hub.repair(channel, history, int(self._clock.wall() * 1000))
            if self._letterbox is not None and resumption is not None:
                self._note_owed(self._letterbox, channel.name, owed=history.owed)
            if resumption is not None and resumption.gap is not None:
                for session in self._hub.sessions_of(channel):
                    session.interrupt(channel.name, resumption)
        self._serve_newcomers(channel, history, after, page)
        self._changed()

    def _first_reading(self, channel: Channel) -> tuple[int | None, Page | None]:
        """From where to read a channel, and how much: one that is new here, as far back as its first reader needs it.

        Who comes back with a cursor is most often the only one of their channel: that spares a second reading.
        """
        if channel.position is not None:
            return channel.offset, None
        for session, view in self._newcomers.get(channel.name, ()):
            if view.after is not None:
                return view.after, _page(session, view)
        return None, None

    def _serve_newcomers(self, channel: Channel, history: History | None, after: int | None, page: Page | None) -> None:
        for session, view in self._newcomers.pop(channel.name, ()):
            fits = after is not None and (view.after, _page(session, view)) == (after, page)
            self._begin(session, channel, view, history if fits else None)

    def _note_owed(self, letterbox: Letterbox, name: str, *, owed: bool) -> None:
        """Most users are owed nothing: known from the channel's reading, it spares each newcomer a question."""
        if not owed:
            letterbox.owes_nothing(name)
        elif letterbox.empty(name):
            # It came while nobody heard, and maybe no log has it any more: what is asked about is sent again.
            letterbox.forget(name)
            self._spawn(self._learn_owed(letterbox, name))

    async def _learn_owed(self, letterbox: Letterbox, name: str) -> None:
        try:
            await letterbox.fetch(name)
        except (TransportError, InvalidRecord) as error:
            log.warning("what is owed on %s cannot be read: %s", name, error)
            letterbox.forget(name)  # the next newcomer asks


def _wanted(session: Session, channel: Channel, view: View) -> bool:
    """Whether the view is still the session's, and waits for its history."""
    return session.state is not State.CLOSED and session.views.get(channel.name) is view and view.bringing is not None


def _page(session: Session, view: View) -> Page | None:
    """How much is read at once. One who wants an older past beside what has come already gets it in one piece."""
    if view.since is None or (view.settled and view.delivered != view.since.offset):
        return None
    return Page(session.settings.replay_events, session.settings.replay_bytes)


def _has_overtaken(view: View, history: History) -> bool:
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
