"""Bringing sessions and channels up to date: history is read, and joined with what is live.

A session that comes (or comes back) gets its own reading; a channel that has missed something is read once for all its
sessions, who notice nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from eventbus.cursor import Position
from eventbus.errors import TransportError
from eventbus.history import History
from eventbus.resume import resume
from eventbus.topics import channel_of
from eventbus.transport import Reader, Subscriber
from webui_adapter.clock import Clock
from webui_adapter.closecodes import CloseCode
from webui_adapter.commands import Subscribe
from webui_adapter.hub import Channel, Hub
from webui_adapter.session import Session, State

__all__ = ["CatchUp"]

log = logging.getLogger(__name__)

_READ_TRIES = 8
_PAUSE_MIN, _PAUSE_MAX = 0.1, 2.0


class CatchUp:
    """Works for one gateway. ``changed`` is called when sessions have something to write."""

    def __init__(
        self, hub: Hub, subscriber: Subscriber, reader: Reader, clock: Clock, changed: Callable[[], None]
    ) -> None:
        self._hub = hub
        self._subscriber = subscriber
        self._reader = reader
        self._clock = clock
        self._changed = changed
        self._repairs: dict[str, asyncio.Task[None]] = {}
        self._readings: dict[tuple[str, int | None], asyncio.Task[History]] = {}

    # --- sessions --------------------------------------------------------------------------------------------

    def watch(self, session: Session, command: Subscribe) -> Channel:
        """Join the session to the channel: from now on its live events are buffered for it."""
        name = channel_of(command.topic)
        known = self._hub.channels.get(name)
        session.watch(command.topic, known.offset if known else 0, command.since)
        channel = self._hub.join(name, session)
        if not channel.live:
            self.repair(channel)
        return channel

    def replay_at_once(self, session: Session, channel: Channel, command: Subscribe) -> bool:
        """Serve from memory: a cursor that is up to date, or a newcomer where nothing has happened since."""
        position, history = channel.position, channel.history
        if position is None or not channel.live:
            return False
        if command.since is not None and command.since == position:
            history = History(position, 0, (), ())
        elif command.since is not None or history is None:
            return False
        return self._hand_over(session, channel, command, history)

    async def replay(self, session: Session, channel: Channel, command: Subscribe) -> None:
        """Read history until it joins up with what is live, and hand it over."""
        after = None if command.since is None else command.since.offset
        tries = 0
        while tries < _READ_TRIES:
            repair = self._repairs.get(channel.name)
            if repair is not None:
                await asyncio.wait([repair])
            if self._gone(session, channel):
                return
            if self.replay_at_once(session, channel, command):
                break
            try:
                history = await self._read(channel.name, after)
            except TransportError as error:
                # However long Redis is away: the session waits, and has been told why.
                log.warning("history of %s cannot be read: %s", channel.name, error)
                await asyncio.sleep(random.uniform(0, _PAUSE_MAX))  # noqa: S311 - spreads retries
                continue
            tries += 1
            if self._gone(session, channel):
                return
            if channel.live and self._hand_over(session, channel, command, history):
                break
        else:
            session.close(CloseCode.TOO_SLOW, "history and live events did not join up; resume with the cursor")
        self._changed()

    def leave(self, name: str, session: Session) -> None:
        """The session reads the channel no longer; the last one closes it."""
        session.views.pop(name, None)
        deserted = self._hub.leave(name, session)
        if deserted is not None:
            self._hub.drop(deserted)
            self._subscriber.unsubscribe(name)
            repair = self._repairs.pop(name, None)
            if repair is not None:
                repair.cancel()

    def _gone(self, session: Session, channel: Channel) -> bool:
        return session.state is State.CLOSED or self._hub.channels.get(channel.name) is not channel

    def _hand_over(self, session: Session, channel: Channel, command: Subscribe, history: History) -> bool:
        """Merge and send; False if the reading is older than what was live already, or does not join up with it."""
        view = session.views.get(channel.name)
        if view is None:
            return True  # left meanwhile
        if view.replaying is None:
            # Another subscription of the same channel, begun while this one was waiting, has brought both.
            session.answer(command.ref)
            return True
        resumption = resume(command.since, history, view.replaying, int(self._clock.wall() * 1000))
        stale = resumption.position.offset < channel.offset
        if stale or (resumption.gap is not None and resumption.gap.reason == "hole"):
            return False
        session.replay(channel.name, resumption, resumed=command.since is not None, ref=command.ref)
        self._hub.settle(channel.name, session)
        return True

    async def _read(self, name: str, after: int | None) -> History:
        """Read history once for all who ask for the same at the same time."""
        key = (name, after)
        task = self._readings.get(key)
        if task is None:
            task = self._readings[key] = asyncio.create_task(self._reader.read(name, after))
            task.add_done_callback(lambda _: self._readings.pop(key, None))
        return await asyncio.shield(task)

    # --- channels --------------------------------------------------------------------------------------------

    def suspend_all(self) -> None:
        """The subscription is broken: nothing is live until it has been read."""
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

    async def repaired(self) -> None:
        """Wait until no channel is on repair."""
        while self._repairs:
            await asyncio.wait(list(self._repairs.values()))

    def cancel(self) -> None:
        """End everything that is under way."""
        for task in (*self._repairs.values(), *self._readings.values()):
            task.cancel()

    def _repair_ended(self, name: str, task: asyncio.Task[None]) -> None:
        if self._repairs.get(name) is task:
            del self._repairs[name]
        if not task.cancelled() and task.exception() is not None:
            log.error("repair of %s failed", name, exc_info=task.exception())

    async def _repair(self, channel: Channel) -> None:
        pause = _PAUSE_MIN
        while not channel.live:
            try:
                if channel.position is None:
                    await self._subscriber.subscribe(channel.name)
                history = await self._reader.read(channel.name, None if channel.position is None else channel.offset)
            except TransportError as error:
                log.info("channel %s cannot be read yet: %s", channel.name, error)
                await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 - spreads retries
                pause = min(pause * 2, _PAUSE_MAX)
                continue
            resumption = self._hub.repair(channel, history, int(self._clock.wall() * 1000))
            if resumption is not None and resumption.gap is not None:
                for session in self._hub.sessions_of(channel):
                    session.interrupt(channel.name, resumption)
        self._changed()

    def position(self, name: str) -> Position | None:
        """Where a channel stands, if it is live here."""
        channel = self._hub.channels.get(name)
        return channel.position if channel is not None and channel.live else None
