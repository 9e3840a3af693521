"""The check of channels that have been quiet: is there something in Redis that never came?

A loss shows by the next event of its channel. Where none comes, nobody would notice; so the positions of quiet channels
are compared with Redis' own, once in a while.
"""

from __future__ import annotations

import asyncio
import logging
import random

from eventbus.backends.ports import Reader
from eventbus.errors import TransportError
from eventbus.protocol.cursor import Position
from webui_adapter.channels.channel_recovery import ChannelRecovery
from webui_adapter.channels.hub import Hub
from webui_adapter.context import GatewayContext
from webui_adapter.health.redis_monitor import RedisMonitor

__all__ = ["IdleChannelCheck"]

log = logging.getLogger(__name__)


class IdleChannelCheck:
    """Works for one gateway."""

    def __init__(
        self,
        context: GatewayContext,
        hub: Hub,
        reader: Reader,
        channel_recovery: ChannelRecovery,
        redis_monitor: RedisMonitor,
    ) -> None:
        self._settings = context.settings
        self._hub = hub
        self._reader = reader
        self._channel_recovery = channel_recovery
        self._redis_monitor = redis_monitor
        self._counters = context.counters
        self._before: dict[str, Position] = {}

    async def run(self) -> None:
        """Check for ever."""
        interval = self._settings.check_interval
        now, took = asyncio.get_running_loop().time, 0.0
        while True:
            # Not in step with the other instances.
            await asyncio.sleep(max(0.0, interval * random.uniform(0.9, 1.1) - took))  # noqa: S311
            begun = now()
            try:
                await self.check(within=interval / 2)
            except TransportError as error:
                log.info("quiet channels cannot be checked: %s", error)
            except Exception:
                log.exception("the check of quiet channels failed")
            took = now() - begun

    async def check(self, within: float = 0.0) -> None:
        """Check the channels that are where they were the last time.

        ``within``: seconds over which many channels are spread. Even to look at a hundred thousand of them takes so
        long that events would have to wait.
        """
        channels, size = list(self._hub.channels.values()), self._settings.check_batch
        pause = within / max(1, len(channels) // size)
        here: dict[str, Position] = {}
        for start in range(0, len(channels), size):
            if start:
                await asyncio.sleep(pause)
            quiet = {}
            for channel in channels[start : start + size]:
                if channel.live and (position := channel.position) is not None:
                    here[channel.name] = position
                    if self._before.get(channel.name) == position:
                        quiet[channel.name] = position
            if quiet:
                await self._compare(quiet)
        self._before = here

    async def _compare(self, batch: dict[str, Position]) -> None:
        self._counters["check.channels"] += len(batch)
        found = dict(zip(batch, await self._reader.positions(list(batch)), strict=True))
        different = [name for name, position in batch.items() if found[name] != position]
        # What had been published before the reading has arrived when a later probe has: what is missing then is lost.
        if not different or not await self._redis_monitor.caught_up():
            return
        for name in different:
            channel = self._hub.channels.get(name)
            # One that has gone on meanwhile shows its holes by itself.
            if channel is not None and channel.live and channel.position == batch[name]:
                self._counters["check.missed"] += 1
                self._channel_recovery.resync(channel, found[name])
