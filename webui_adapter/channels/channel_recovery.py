"""Bringing channels up to date: one that has missed something is read once for all its sessions, who notice nothing."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final, Protocol

from eventbus.backends.ports import Subscriber
from eventbus.errors import InvalidRecord, TransportError
from eventbus.protocol.cursor import Position
from eventbus.protocol.history import History
from webui_adapter.channels.channel import Channel
from webui_adapter.channels.history_reader import NO_PAST, HistoryRange, HistoryReader
from webui_adapter.channels.hub import Hub
from webui_adapter.channels.redelivery import RedeliveryScheduler
from webui_adapter.clock import Clock

__all__ = ["PAUSE_MAX", "ChannelRecovery", "Newcomers"]

log = logging.getLogger(__name__)

_PAUSE_MIN: Final = 0.1
PAUSE_MAX: Final = 2.0
"""Seconds between two tries to read, at most."""
_REPAIRED_WITHIN = 10.0


class Newcomers(Protocol):
    """Those who came while their channel was on repair."""

    def first_extent(self, channel: Channel) -> HistoryRange:
        """How far back to read a channel that is new here."""

    def serve(self, channel: Channel, history: History | None, read: HistoryRange) -> None:
        """The channel is live: from the reading that has brought it there, where that is what they need."""


class ChannelRecovery:
    """Works for one gateway. ``changed`` is called when sessions have something to write.

    Attributes:
        losses: how often the subscription was broken; a reading from before does not show what was lost meanwhile.
    """

    def __init__(
        self,
        hub: Hub,
        subscriber: Subscriber,
        readings: HistoryReader,
        clock: Clock,
        newcomers: Newcomers,
        changed: Callable[[], None],
        letterbox: RedeliveryScheduler | None,
    ) -> None:
        self._hub = hub
        self._subscriber = subscriber
        self._readings = readings
        self._clock = clock
        self._newcomers = newcomers
        self._changed = changed
        self._letterbox = letterbox
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._doubted: set[str] = set()
        self.losses = 0

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
        if name not in self._under_way:
            task = asyncio.create_task(self._repair(channel))
            self._under_way[name] = task
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
        if self._under_way:
            await asyncio.wait(list(self._under_way.values()), timeout=_REPAIRED_WITHIN)

    def cancel(self) -> None:
        """End those that are under way."""
        for task in self._under_way.values():
            task.cancel()

    def abandon(self, name: str) -> None:
        """Nobody reads the channel any more."""
        self._doubted.discard(name)
        repair = self._under_way.pop(name, None)
        if repair is not None:
            repair.cancel()

    async def live_again(self, channel: Channel) -> None:
        """Wait until a channel's repair has come to an end; it may not be live then, or not for long."""
        self.repair(channel)
        await asyncio.wait([self._under_way[channel.name]])
        if not channel.live and self._hub.channels.get(channel.name) is channel:
            await asyncio.sleep(random.uniform(0, PAUSE_MAX))  # noqa: S311 - spreads retries

    def _repair_ended(self, name: str, task: asyncio.Task[None]) -> None:
        if self._under_way.get(name) is task:
            del self._under_way[name]
        if task.cancelled():
            return
        channel = self._hub.channels.get(name)
        if task.exception() is not None:
            log.error("repair of %s failed", name, exc_info=task.exception())
        elif channel is not None and not channel.live:
            self.repair(channel)  # it fell ill again between the task's last step and this

    async def _repair(self, channel: Channel) -> None:
        pause = _PAUSE_MIN
        history, read = None, NO_PAST
        while not channel.live:
            losses = self.losses
            try:
                if channel.position is None or channel.name in self._doubted:
                    await self._subscriber.subscribe(channel.name)
                    self._doubted.discard(channel.name)
                # What it has missed; or, if it is new here, as far back as its first reader needs it.
                known = channel.position is not None
                read = HistoryRange(channel.offset, None) if known else self._newcomers.first_extent(channel)
                history = await self._readings.anew(channel.name, read)
            except (TransportError, InvalidRecord) as error:
                log.info("channel %s cannot be read yet: %s", channel.name, error)
                await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 - spreads retries
                pause = min(pause * 2, PAUSE_MAX)
                continue
            if losses != self.losses:
                continue
            resumption = self._hub.repair(channel, history, int(self._clock.wall() * 1000))
            if self._letterbox is not None and resumption is not None:
                self._letterbox.opened(channel.name, owed=history.has_pending)
            if resumption is not None and resumption.gap is not None:
                for session in self._hub.sessions_of(channel):
                    session.interrupt(channel.name, resumption)
        self._newcomers.serve(channel, history, read)
        self._changed()
