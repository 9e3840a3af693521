"""Checks Redis' health on a separate connection: does it publish, and does it take writes?"""

from __future__ import annotations

import contextlib
from typing import Final

from eventbus.backends.redis.connections.errors import describe_cluster, describe_refusal
from eventbus.backends.redis.connections.locator import AsyncLocator
from eventbus.backends.redis.connections.pipeline import Pipeline
from eventbus.backends.redis.connections.resp import Command
from eventbus.backends.redis.format_check import FormatAnnouncement
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.clock import ServerClock
from eventbus.errors import Refused, TransportError
from eventbus.settings import BusSettings

__all__ = ["RedisProbe"]

_LIFE_MS: Final = 60_000


class RedisProbe:
    """``Probe`` over one connection. It is separate, since a busy connection for history is no sign
    of bad health.

    Args:
        settings: address and time limits.
        locator: names the server for each new connection; default: the one that the address names.
    """

    def __init__(self, settings: BusSettings, *, locator: AsyncLocator | None = None) -> None:
        self._keys = Keys.of(settings)
        self._pipeline = Pipeline(settings, locator=locator)
        self.clock = ServerClock()
        self._announced = FormatAnnouncement(settings, self.clock)
        self._checked_cluster = False
        self._cluster: str | None = None

    async def publish_canary(self, text: str, instance: str) -> str | None:
        """See ``Probe``. A server without memory refuses writes and still publishes."""
        await self._read_clock()
        commands: list[Command] = [
            ("PUBLISH", self._keys.canary, text),
            ("SET", self._keys.probe(instance), text, "PX", _LIFE_MS),
            *self._announced.commands(instance),
        ]
        if not self._checked_cluster:
            commands.append(("CLUSTER", "INFO"))
        published, written, *others = await self._pipeline.replies(commands)
        for reply in (published, written):
            if isinstance(reply, TransportError) and (reply is published or not reply.code):
                raise reply
        if not self._checked_cluster:
            self._checked_cluster, self._cluster = True, describe_cluster(others[-1])
        return self._cluster or (describe_refusal(written) if isinstance(written, TransportError) else None)

    async def _read_clock(self) -> None:
        with contextlib.suppress(Refused):  # a user without the right to it; the canary says whether Redis answers
            self.clock.observe(await self._pipeline.execute(("TIME",)))

    async def aclose(self) -> None:
        """See ``Probe``. Workers need not consider this instance any more."""
        for command in self._announced.withdrawal:
            with contextlib.suppress(TransportError):
                await self._pipeline.execute(command)
        await self._pipeline.aclose()
