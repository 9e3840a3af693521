"""Bringing channels up to date: one that has missed something is read once for all its sessions, who notice nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from eventbus.backends.ports import Subscriber
from eventbus.errors import InvalidRecord, TransportError
from eventbus.flow.backoff import ceiling, jitter
from eventbus.protocol.cursor import Position
from eventbus.protocol.history import History
from webui_adapter.channels.channel import Channel
from webui_adapter.channels.history_reader import SNAPSHOT_ONLY, HistoryRange, HistoryReader
from webui_adapter.channels.hub import Hub
from webui_adapter.channels.redelivery import RedeliveryScheduler
from webui_adapter.context import GatewayContext

__all__ = ["PAUSE_MAX", "ChannelRecovery", "WaitingSessions"]

log = logging.getLogger(__name__)

_PAUSE_MIN: Final = 0.1
PAUSE_MAX: Final = 2.0
"""Seconds between two tries to read, at most."""
_REPAIRED_WITHIN = 10.0


class WaitingSessions(Protocol):
    """Those who came while their channel was on repair."""

    def first_range(self, channel: Channel) -> HistoryRange:
        """How far back to read a channel that is new here."""

    def channel_recovered(self, channel: Channel, history: History | None, read: HistoryRange) -> None:
        """The channel is live: from the reading that has brought it there, where that is what they need."""


class ChannelRecovery:
    """Works for one gateway. ``changed`` is called when sessions have something to write.

    Attributes:
        losses: how often the subscription was broken; a reading from before does not show what was lost meanwhile.
    """

    def __init__(
        self,
        context: GatewayContext,
        hub: Hub,
        subscriber: Subscriber,
        history_reader: HistoryReader,
        redelivery: RedeliveryScheduler | None,
        changed: Callable[[], None],
        waiting_sessions: WaitingSessions,
    ) -> None:
        self._hub = hub
        self._subscriber = subscriber
        self._history_reader = history_reader
        self._clock = context.clock
        self._waiting_sessions = waiting_sessions
        self._changed = changed
        self._redelivery = redelivery
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._doubted: set[str] = set()
        self.disconnects = 0

    def suspend_all(self) -> None:
        """The subscription is broken: nothing is live until it has been read."""
        self.disconnects += 1
        for channel in self._hub.channels.values():
            self._hub.suspend(channel)

    def recover_all(self) -> None:
        """The subscription is back: read what every channel has missed."""
        self.suspend_all()
        for channel in list(self._hub.channels.values()):
            self.recover(channel)

    def recover(self, channel: Channel) -> None:
        """Begin to bring a channel up to date, unless that is under way."""
        name = channel.name
        if name not in self._under_way:
            task = asyncio.create_task(self._repair(channel))
            self._under_way[name] = task
            task.add_done_callback(lambda done: self._repair_ended(name, done))

    def resync(self, channel: Channel, found: Position) -> None:
        """Redis has another position for a channel than we do, and nothing is on its way that explains it."""
        log.info("channel %s has position %s in Redis, %s here", channel.name, found, channel.position)
        if found.epoch:
            # Whatever the reason, maybe the server no longer counts us among those who listen.
            self._doubted.add(channel.name)
            self._hub.suspend(channel)
            self.recover(channel)
        else:
            self._hub.channel_expired(channel)
            self._changed()

    async def wait_until_recovered(self) -> None:
        """Wait until the channels that are on repair now are up to date; not for ever, one may be past repair."""
        if self._under_way:
            await asyncio.wait(list(self._under_way.values()), timeout=_REPAIRED_WITHIN)

    def cancel(self) -> None:
        """End those that are under way."""
        for task in self._under_way.values():
            task.cancel()

    def forget(self, name: str) -> None:
        """Nobody reads the channel any more."""
        self._doubted.discard(name)
        recover = self._under_way.pop(name, None)
        if recover is not None:
            recover.cancel()

    async def wait_until_live(self, channel: Channel) -> None:
        """Wait until a channel's repair has come to an end; it may not be live then, or not for long."""
        self.recover(channel)
        await asyncio.wait([self._under_way[channel.name]])
        if not channel.live and self._hub.channels.get(channel.name) is channel:
            await asyncio.sleep(jitter(PAUSE_MAX))

    def _repair_ended(self, name: str, task: asyncio.Task[None]) -> None:
        if self._under_way.get(name) is task:
            del self._under_way[name]
        if task.cancelled():
            return
        channel = self._hub.channels.get(name)
        if task.exception() is not None:
            log.error("repair of %s failed", name, exc_info=task.exception())
        elif channel is not None and not channel.live:
            self.recover(channel)  # it fell ill again between the task's last step and this

    async def _repair(self, channel: Channel) -> None:
        failures = 0
        history, read = None, SNAPSHOT_ONLY
        while not channel.live:
            disconnects = self.disconnects
            try:
                if channel.position is None or channel.name in self._doubted:
                    await self._subscriber.subscribe(channel.name)
                    self._doubted.discard(channel.name)
                # What it has missed; or, if it is new here, as far back as its first reader needs it.
                known = channel.position is not None
                read = HistoryRange(channel.offset, None) if known else self._waiting_sessions.first_range(channel)
                history = await self._history_reader.read(channel.name, read)
            except (TransportError, InvalidRecord) as error:
                log.info("channel %s cannot be read yet: %s", channel.name, error)
                await asyncio.sleep(jitter(ceiling(failures, _PAUSE_MIN, PAUSE_MAX)))
                failures += 1
                continue
            if disconnects != self.disconnects:
                continue
            resumption = self._hub.recover(channel, history, int(self._clock.wall() * 1000))
            if self._redelivery is not None and resumption is not None:
                self._redelivery.channel_read(channel.name, pending=history.has_pending)
            if resumption is not None and resumption.gap is not None:
                for session in self._hub.sessions_of(channel):
                    session.subscriptions.restart_after_gap(channel.name, resumption)
        self._waiting_sessions.channel_recovered(channel, history, read)
        self._changed()
