"""Receives live publications from Redis.

The listener learns of each loss. A ping without a reply ends the connection, and so does a server that has become a
replica: it passes on what its master publishes, and falls silent when it is detached.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

import hiredis

from eventbus.backends.redis.cluster.canaries import CanaryParts
from eventbus.backends.redis.cluster.locator import AnyMasterLocator
from eventbus.backends.redis.connections.address import open_transport
from eventbus.backends.redis.connections.locator import AsyncLocator, async_locator
from eventbus.backends.redis.connections.subscription import SubscriptionConnection
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.backends.subscription import Listener
from eventbus.errors import Unavailable
from eventbus.flow.backoff import ceiling, jitter
from eventbus.settings import BusSettings

__all__ = ["RedisSubscriber"]

log = logging.getLogger(__name__)

_LAST_READ: Final = 0.01  # seconds to read bytes that have just arrived
# Errors of a write after which a server is not subscribed to. Others, such as OOM, do not keep it from publishing.
_NOT_THE_MASTER: Final = ("LOADING", "MASTERDOWN", "READONLY")
_CHECK_MS: Final = 1_000  # life of the key that the check of a new connection writes


class RedisSubscriber:
    """``Subscriber`` over one connection. After a loss it reconnects with full jitter and
    subscribes to all channels again.

    Args:
        settings: address, time limits and the keys' prefix.
        locator: names the server for each new connection; default: the one that the address names.
    """

    def __init__(self, settings: BusSettings, *, locator: AsyncLocator | None = None) -> None:
        self._settings = settings
        self._address = settings.redis
        cluster = self._address.kind == "cluster"
        self._locator = locator or (AnyMasterLocator(settings) if cluster else async_locator(self._address, settings))
        self._keys = Keys.of(settings)
        self._canary = self._keys.canary.encode()
        self._revoked = self._keys.revoked.encode()
        self._canaries = CanaryParts()
        self._control: str | None = None
        self._listener: Listener | None = None
        self._channels: set[str] = set()
        self._connection: SubscriptionConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()

    async def start(self, listener: Listener) -> None:
        """See ``Subscriber``. Return immediately; a background task waits for a Redis that does not
        answer yet.
        """
        self._listener = listener
        self._task = asyncio.create_task(self._keep_connected(), name="eventbus-subscriber")

    async def subscribe(self, channel: str) -> None:
        """See ``Subscriber``."""
        self._channels.add(channel)
        connection = self._connection
        if connection is None:
            raise Unavailable("Redis is not connected")
        (ack,) = connection.subscribe(self._keys.live(channel))
        try:
            async with asyncio.timeout(self._settings.socket_timeout):
                await ack
        except TimeoutError:
            raise Unavailable(f"Redis did not acknowledge SUBSCRIBE within {self._settings.socket_timeout} s") from None

    def receive_control(self, life: str) -> None:
        """See ``Subscriber``."""
        self._control = self._keys.control(life)

    @property
    def _always(self) -> tuple[str, ...]:
        """The pub/sub channels that are always subscribed. They also keep the connection in subscriber mode."""
        control = () if self._control is None else (self._control,)
        return (self._keys.canary, self._keys.revoked, *control)

    def unsubscribe(self, channel: str) -> None:
        """See ``Subscriber``."""
        self._channels.discard(channel)
        if self._connection is not None:
            self._connection.send("UNSUBSCRIBE", self._keys.live(channel))

    def reconnect(self, reason: str) -> None:
        """See ``Subscriber``."""
        if self._connection is not None:
            self._connection.abort(reason)

    async def aclose(self) -> None:
        """See ``Subscriber``."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._connection is not None:
            self._listener = None  # an end in order is no loss
            self._connection.close("closing")
        await self._locator.aclose()

    async def _keep_connected(self) -> None:
        failures = 0
        while True:
            try:
                connection = await self._connect()
            except (OSError, TimeoutError, Unavailable) as error:
                failures += 1
                log.warning("cannot connect to Redis for pub/sub: %s", error)
                await asyncio.sleep(jitter(ceiling(failures, self._settings.retry_min, self._settings.retry_max)))
                continue
            failures = 0
            assert self._listener is not None
            self._listener.restored()
            await self._monitor(connection)

    async def _connect(self) -> SubscriptionConnection:
        """Connect, authenticate and subscribe to all channels within the time limits."""
        self._lost.clear()
        self._endpoint = await self._locator.locate()
        connection = await open_transport(
            self._address,
            self._endpoint,
            lambda: SubscriptionConnection(self._message, self._turn, self._connection_lost),
            self._settings.connect_timeout,
        )
        # A replica answers this with an error. ROLE would say so too, but users may lack the right to it.
        check = ("SET", self._keys.probe("subscriber"), "", "PX", _CHECK_MS)
        try:
            async with asyncio.timeout(self._settings.socket_timeout):
                pong, written = await connection.authenticate(self._address, [("PING",), check])
                refused = isinstance(written, hiredis.ReplyError) and str(written).startswith(_NOT_THE_MASTER)
                if isinstance(pong, hiredis.ReplyError) or refused:
                    raise Unavailable(f"Redis answered: {written if refused else pong}")
                subscribed = (*self._always, *map(self._keys.live, self._channels))
                await asyncio.gather(*connection.subscribe(*subscribed))
        except BaseException:
            connection.abort("setting up failed")
            raise
        self._connection = connection
        # Callers may have subscribed and unsubscribed while the server acknowledged the others.
        required = {*self._always, *map(self._keys.live, self._channels)}
        connection.subscribe(*(required - set(subscribed)))
        obsolete = set(subscribed) - required
        if obsolete:
            connection.send("UNSUBSCRIBE", *obsolete)
        return connection

    async def _monitor(self, connection: SubscriptionConnection) -> None:
        """Ping until the connection is lost. End it if the server was silent for too long."""
        now = asyncio.get_running_loop().time
        limit, interval = self._settings.silence_limit, self._settings.ping_interval
        since = 0.0
        while not self._lost.is_set():
            if not self._locator.holds(self._endpoint):
                connection.abort("another server has taken over")
                await self._lost.wait()
                return
            connection.send("PING")
            pause = min(interval, max(max(connection.heard, since) + limit - now(), 0.0))
            due = now() + pause
            await self._wait_lost(pause)
            if now() - due > interval:
                # The event loop was busy and sent no ping, so the silence proves nothing.
                since = now()
            if now() - max(connection.heard, since) >= limit:
                # The loop has not read the bytes that arrived at this moment.
                await self._wait_lost(_LAST_READ)
                if now() - max(connection.heard, since) >= limit:
                    connection.abort(f"no byte arrived for {limit:g} s, not even a reply to PING")
                    await self._lost.wait()

    async def _wait_lost(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._lost.wait()

    def _message(self, live: bytes, payload: bytes) -> None:
        assert self._listener is not None
        if live == self._canary:
            canary = self._canaries.add(payload.decode(errors="replace"))
            if canary is not None:
                self._listener.canary_received(canary)
        elif live == self._revoked:
            self._listener.revoked()
        elif self._control is not None and live == self._control.encode():
            self._listener.control_received(payload)
        else:
            self._listener.received(self._keys.channel_of_live(live), payload)

    def _turn(self) -> None:
        assert self._listener is not None
        self._listener.turn_ended()

    def _connection_lost(self, reason: str) -> None:
        self._lost.set()
        if self._connection is not None:
            self._connection = None
            if self._listener is not None:
                self._listener.lost(reason)
