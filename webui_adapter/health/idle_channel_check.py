"""The check of idle channels: did a publication get lost that no later one reveals?

The next event of a channel reveals a loss. An idle channel has no next event. So the gateway compares the positions of
idle channels with those in Redis from time to time.
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
    """Checks the idle channels of one gateway."""

    def __init__(
        self,
        context: GatewayContext,
        hub: Hub,
        reader: Reader,
        channel_recovery: ChannelRecovery,
        redis_monitor: RedisMonitor,
    ) -> None:
        """Begin without a known position.

        Args:
            context: The gateway's settings and counters.
            hub: The channels.
            reader: Reads positions from Redis.
            channel_recovery: Recovers channels that have missed something.
            redis_monitor: Proves that earlier publications have arrived.
        """
        self._settings = context.settings
        self._hub = hub
        self._reader = reader
        self._channel_recovery = channel_recovery
        self._redis_monitor = redis_monitor
        self._counters = context.counters
        self._before: dict[str, Position] = {}

    async def run(self) -> None:
        """Check again and again, as long as the gateway lives."""
        interval = self._settings.check_interval
        now, took = asyncio.get_running_loop().time, 0.0
        while True:
            # Random, so that the instances do not check at the same time.
            await asyncio.sleep(max(0.0, interval * random.uniform(0.9, 1.1) - took))  # noqa: S311
            begun = now()
            try:
                await self.check(within=interval / 2)
            except TransportError as error:
                log.info("cannot check idle channels: %s", error)
            except Exception:
                log.exception("cannot check idle channels")
            took = now() - begun

    async def check(self, within: float = 0.0) -> None:
        """Check the channels whose position is the same as last time.

        Args:
            within: The seconds over which many channels are spread. To examine a hundred thousand of them in one go
                would delay events.

        Raises:
            Unavailable: Redis cannot be reached.
            Refused: Redis refuses a command.
        """
        channels, size = list(self._hub.channels.values()), self._settings.check_batch
        pause = within / max(1, len(channels) // size)
        here: dict[str, Position] = {}
        for start in range(0, len(channels), size):
            if start:
                await asyncio.sleep(pause)
            idle = {}
            for channel in channels[start : start + size]:
                if channel.live and (position := channel.position) is not None:
                    here[channel.name] = position
                    if self._before.get(channel.name) == position:
                        idle[channel.name] = position
            if idle:
                await self._compare(idle)
        self._before = here

    async def _compare(self, batch: dict[str, Position]) -> None:
        self._counters["check.channels"] += len(batch)
        found = dict(zip(batch, await self._reader.positions(list(batch)), strict=True))
        different = [name for name, position in batch.items() if found[name] != position]
        # Once a later canary has arrived, every earlier publication has too. A missing one is lost.
        if not different or not await self._redis_monitor.caught_up():
            return
        for name in different:
            channel = self._hub.channels.get(name)
            # A channel that has moved on reveals its own holes.
            if channel is not None and channel.live and channel.position == batch[name]:
                self._counters["check.missed"] += 1
                self._channel_recovery.resync(channel, found[name])
