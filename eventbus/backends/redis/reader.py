"""Reads the history of channels from an event loop, and runs the scripts of the stores."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeVar

from eventbus.backends.redis.connections.errors import ScriptUnknown
from eventbus.backends.redis.connections.pipeline import Pipeline, Reply
from eventbus.backends.redis.scripts.channel import fork, read
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.backends.redis.scripts.script import Call, Script
from eventbus.protocol.cursor import BEGINNING, Position
from eventbus.protocol.history import History, Page
from eventbus.settings import BusSettings

__all__ = ["RedisReader"]

R = TypeVar("R")


class RedisReader:
    """``Reader`` over one connection. Calls of one turn of the event loop go out together.

    Args:
        settings: address, time limits and the keys' prefix.
        most_waiting: maximum number of calls that wait for a reply.
    """

    def __init__(self, settings: BusSettings, *, most_waiting: int = 20_000) -> None:
        self._keys = Keys.of(settings)
        self._pipeline = Pipeline(settings, most_waiting=most_waiting)
        self._loading: dict[str, asyncio.Future[Reply]] = {}

    async def read(self, channel: str, after: int | None, page: Page | None = None) -> History:
        """See ``Reader``."""
        return await self.run(read(self._keys, channel, after, page))

    async def fork(self, channel: str, epoch: str) -> bool:
        """See ``Reader``."""
        return await self.run(fork(self._keys, channel, epoch))

    async def positions(self, channels: Sequence[str]) -> list[Position]:
        """See ``Reader``."""
        states = (self._keys.channel(channel)[0] for channel in channels)
        replies = await self._pipeline.execute_all([("HMGET", state, "epoch", "offset") for state in states])
        return [Position(epoch.decode(), int(offset)) if epoch else BEGINNING for epoch, offset in replies]

    async def run(self, call: Call[R]) -> R:
        """Run a script. If the server does not have it, load it first.

        Args:
            call: the call.

        Returns:
            The decoded reply.

        Raises:
            Unavailable, Refused: the server did not answer, or rejected the call.
        """
        try:
            reply = await self._pipeline.execute(call.command)
        except ScriptUnknown:
            await self._load(call.script)
            reply = await self._pipeline.execute(call.command)
        return call.decode(reply)

    async def _load(self, script: Script) -> None:
        """Load a script, once for all calls that found it missing."""
        loading = self._loading.get(script.sha)
        if loading is None:
            loading = asyncio.ensure_future(self._pipeline.execute(("SCRIPT", "LOAD", script.source)))
            self._loading[script.sha] = loading
            loading.add_done_callback(lambda done: self._loaded(script, done))
        await asyncio.shield(loading)

    def _loaded(self, script: Script, done: asyncio.Future[Reply]) -> None:
        del self._loading[script.sha]
        if not done.cancelled():
            done.exception()  # marks it as retrieved: asyncio need not warn if no call waits

    async def execute(self, *command: str | bytes | int) -> Reply:
        """Run a command.

        Args:
            command: the command and its arguments.

        Returns:
            The reply.

        Raises:
            Unavailable, Refused: the server did not answer, or rejected the command.
        """
        return await self._pipeline.execute(command)

    async def aclose(self) -> None:
        """See ``Reader``."""
        await self._pipeline.aclose()
