"""Follows sentinels in an event loop: one task for each sentinel."""

from __future__ import annotations

import asyncio
from typing import cast

from eventbus.backends.redis.connections.address import open_transport, sentinel_address
from eventbus.backends.redis.connections.sentinel_protocol import MasterView, SentinelSession
from eventbus.errors import Unavailable
from eventbus.redis_url import Endpoint, RedisAddress
from eventbus.settings import BusSettings

__all__ = ["AsyncSentinels"]


class AsyncSentinels:
    """``AsyncLocator`` of the master that sentinels name. The tasks start at first use.

    Args:
        address: an address of kind ``sentinel``.
        settings: time limits.
    """

    def __init__(self, address: RedisAddress, settings: BusSettings) -> None:
        self._address = address
        self._settings = settings
        self._view = MasterView(len(address.nodes))
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def locate(self) -> Endpoint:
        """See ``AsyncLocator``."""
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(self._keep_following(number, endpoint), name=f"eventbus-sentinel-{number}")
                for number, endpoint in enumerate(self._address.nodes)
            ]
        limit = self._settings.connect_timeout + self._settings.socket_timeout
        try:
            async with asyncio.timeout(limit):
                while self._view.master is None:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
        return self._view.locate(self._address)

    def holds(self, endpoint: Endpoint) -> bool:
        """See ``AsyncLocator``."""
        return self._view.master in (None, endpoint)

    async def aclose(self) -> None:
        """See ``AsyncLocator``."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_following(self, number: int, endpoint: Endpoint) -> None:
        while True:
            try:
                await self._follow(number, endpoint)
            except (OSError, TimeoutError, Unavailable) as error:
                self._view.forget(number, f"{endpoint}: {error}")
            await asyncio.sleep(self._settings.ping_interval)

    async def _follow(self, number: int, endpoint: Endpoint) -> None:
        session = SentinelSession(self._view, number, self._address)
        address = sentinel_address(self._address)
        connection = await open_transport(
            address, endpoint, lambda: _Connection(session, self._changed), self._settings.connect_timeout
        )
        try:
            connection.send(session.greeting())
            await connection.follow(session, self._settings)
        finally:
            connection.abort()


class _Connection(asyncio.Protocol):
    """Passes bytes to a session. ``changed`` is set after each."""

    def __init__(self, session: SentinelSession, changed: asyncio.Event) -> None:
        self._session = session
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, not a check: uvloop's transports do not inherit from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        try:
            self._session.feed(data)
        except Unavailable as error:
            self._end(error)
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(Unavailable(str(exc or "the sentinel closed the connection")))

    def _end(self, error: Exception) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)
            self._ended.exception()  # marks it as retrieved: asyncio need not warn if no caller waits

    def send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def follow(self, session: SentinelSession, settings: BusSettings) -> None:
        """Ask until the connection has ended. Raise Unavailable then, or if the sentinel is silent."""
        while True:
            await asyncio.wait([self._ended], timeout=settings.ping_interval)
            if self._ended.done():
                await self._ended
            if self._loop.time() - self._heard >= settings.silence_limit:
                raise Unavailable(f"no reply for {settings.silence_limit:g} s")
            self.send(session.question())
