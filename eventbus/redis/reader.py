"""Reading history from an event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from eventbus.cursor import BEGINNING, Position
from eventbus.errors import Refused
from eventbus.history import History, Page
from eventbus.redis.keys import Keys
from eventbus.redis.publisher import classify
from eventbus.redis.scripts import Call, read
from eventbus.settings import BusSettings

__all__ = ["RedisReader"]

R = TypeVar("R")


class ScriptUnknown(Refused):
    """The server has not been given this script, or lost it."""


class RedisReader:
    """A small pool of connections; a call that finds none free waits, within the time limit."""

    def __init__(self, settings: BusSettings, *, max_connections: int = 16) -> None:
        self._keys = Keys(settings.key_prefix)
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            settings.redis_url,
            protocol=2,
            max_connections=max_connections,
            timeout=settings.socket_timeout,
            socket_connect_timeout=settings.connect_timeout,
            socket_timeout=settings.socket_timeout,
            retry=Retry(NoBackoff(), 0),
        )
        self._client = redis.asyncio.Redis(connection_pool=pool)
        # The client library has no types for this method.
        self._execute: Callable[..., Awaitable[Any]] = self._client.execute_command

    async def read(self, channel: str, after: int | None, page: Page | None = None) -> History:
        """See ``Reader``."""
        return await self.run(read(self._keys, channel, after, page))

    async def positions(self, channels: Sequence[str]) -> list[Position]:
        """See ``Reader``."""
        pipeline = self._client.pipeline(transaction=False)
        for channel in channels:
            pipeline.hmget(self._keys.channel(channel)[0], "epoch", "offset")
        try:
            replies = await pipeline.execute()
        except (redis.RedisError, OSError) as error:
            raise classify(error) from error
        return [Position(epoch.decode(), int(offset)) if epoch else BEGINNING for epoch, offset in replies]

    async def run(self, call: Call[R]) -> R:
        """Run a script. Raises Unavailable or Refused."""
        try:
            reply = await self.execute(*call.command)
        except ScriptUnknown:
            await self.execute("SCRIPT", "LOAD", call.script.source)
            reply = await self.execute(*call.command)
        return call.decode(reply)

    async def execute(self, *command: str | bytes | int) -> Any:
        """Run a command. Raises Unavailable or Refused."""
        try:
            return await self._execute(*command)
        except redis.exceptions.NoScriptError as error:
            raise ScriptUnknown(str(error)) from error
        except (redis.RedisError, OSError) as error:
            raise classify(error) from error

    async def aclose(self) -> None:
        """See ``Reader``."""
        await self._client.aclose()
        await self._client.connection_pool.disconnect()
