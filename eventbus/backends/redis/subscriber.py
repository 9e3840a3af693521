"""Receives live publications from Redis: a small asyncio protocol over hiredis' parser.

redis-py's pub/sub takes several times as long per message, reconnects silently, and does not notice
a silent server. Here the listener gets all publications of one socket read in one turn, and learns
of each loss. A ping without a reply ends the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections import defaultdict, deque
from collections.abc import Callable
from itertools import chain
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import hiredis

from eventbus.backends.ports import Listener
from eventbus.backends.redis.connections.resp import pack
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.errors import Unavailable
from eventbus.flow.backoff import ceiling, jitter
from eventbus.settings import BusSettings

__all__ = ["RedisSubscriber"]

log = logging.getLogger(__name__)

_LAST_READ = 0.01  # seconds to read bytes that have just arrived


class _Connection(asyncio.Protocol):
    """One connection in subscriber mode (RESP2): bytes in, callbacks out."""

    def __init__(
        self,
        on_message: Callable[[bytes, bytes], None],
        on_turn: Callable[[], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._on_message = on_message
        self._on_turn = on_turn
        self._on_lost = on_lost
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        # One future for each SUBSCRIBE, the oldest first. Redis acknowledges each, also with an
        # UNSUBSCRIBE between two.
        self._acks: defaultdict[bytes, deque[asyncio.Future[None]]] = defaultdict(deque)
        self._replies: list[asyncio.Future[object]] = []
        self._reason = "closed by the server"
        self.heard = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, not a check: uvloop's transports do not inherit from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.heard = asyncio.get_running_loop().time()
        reader = self._reader
        on_message = self._on_message
        reader.feed(data)
        handed_over = False
        try:
            while (reply := reader.gets()) is not False:
                if type(reply) is list and reply[0] == b"message":
                    on_message(reply[1], reply[2])
                    handed_over = True
                else:
                    self._answered(reply)
        except hiredis.ProtocolError as error:
            self.abort(f"protocol error: {error}")
        if handed_over:
            self._on_turn()

    def _answered(self, reply: object) -> None:
        if isinstance(reply, list) and reply and reply[0] == b"subscribe":
            acks = self._acks.get(reply[1])
            if acks:
                ack = acks.popleft()
                if not acks:
                    del self._acks[reply[1]]
                if not ack.done():
                    ack.set_result(None)
        elif isinstance(reply, list) and reply and reply[0] in (b"unsubscribe", b"pong"):
            pass
        elif self._replies:
            waiting = self._replies.pop(0)
            if not waiting.done():
                waiting.set_result(reply)
        elif isinstance(reply, hiredis.ReplyError):
            self.abort(f"Redis answered: {reply}")

    def connection_lost(self, exc: Exception | None) -> None:
        reason = str(exc or self._reason)
        error = Unavailable(f"the connection to Redis is lost: {reason}")
        waiting: list[asyncio.Future[Any]] = [*chain.from_iterable(self._acks.values()), *self._replies]
        for future in waiting:
            if not future.done():
                future.set_exception(error)
                future.exception()  # marks it as retrieved: asyncio need not warn if no caller waits
        self._acks.clear()
        self._replies.clear()
        self._on_lost(reason)

    def abort(self, reason: str) -> None:
        """Close the connection immediately. A normal close would wait for a peer that may be
        silent.
        """
        log.warning("closing the subscriber connection: %s", reason)
        self._reason = reason
        if self._transport is not None:
            self._transport.abort()

    def send(self, *command: str) -> None:
        """Send a command. Its reply arrives in ``data_received``."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(pack(command))

    def request(self, *command: str) -> asyncio.Future[object]:
        """Send a command before the first SUBSCRIBE, such as AUTH or PING. Returns the future of
        its reply.
        """
        waiting: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._replies.append(waiting)
        self.send(*command)
        return waiting

    def subscribe(self, *lives: str) -> list[asyncio.Future[None]]:
        """Subscribe to pub/sub channels. Returns one future for each; it ends when the server has
        acknowledged it.
        """
        acks = []
        for live in lives:
            ack: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._acks[live.encode()].append(ack)
            acks.append(ack)
        if lives:
            self.send("SUBSCRIBE", *lives)
        return acks


class RedisSubscriber:
    """``Subscriber`` over one connection. After a loss it reconnects with full jitter and
    subscribes to all channels again.

    Args:
        settings: address, time limits and the keys' prefix.
    """

    def __init__(self, settings: BusSettings) -> None:
        self._settings = settings
        self._keys = Keys(settings.key_prefix)
        self._canary = self._keys.canary.encode()
        self._listener: Listener | None = None
        self._channels: set[str] = set()
        self._connection: _Connection | None = None
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
            self._connection.abort("closing")

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

    async def _connect(self) -> _Connection:
        """Connect, authenticate and subscribe to all channels within the time limits."""
        loop = asyncio.get_running_loop()
        self._lost.clear()
        url = urlsplit(self._settings.redis_url)
        connection = _Connection(self._message, self._turn, self._connection_lost)
        if url.scheme == "unix":
            opening = loop.create_unix_connection(lambda: connection, url.path)
        else:
            tls = ssl.create_default_context() if url.scheme == "rediss" else None
            opening = loop.create_connection(lambda: connection, url.hostname or "127.0.0.1", url.port or 6379, ssl=tls)
        # Use asyncio.timeout: before Python 3.12 wait_for swallows a cancellation that comes with
        # the result.
        async with asyncio.timeout(self._settings.connect_timeout):
            await opening
        try:
            async with asyncio.timeout(self._settings.socket_timeout):
                if url.password:
                    user = (unquote(url.username),) if url.username else ()
                    await connection.request("AUTH", *user, unquote(url.password))
                reply = await connection.request("PING")
                if isinstance(reply, hiredis.ReplyError):
                    raise Unavailable(f"Redis answered: {reply}")
                # The canary channel is always subscribed. It also keeps the connection in
                # subscriber mode.
                subscribed = (self._keys.canary, *map(self._keys.live, self._channels))
                await asyncio.gather(*connection.subscribe(*subscribed))
        except BaseException:
            connection.abort("setting up failed")
            raise
        self._connection = connection
        # Callers may have subscribed and unsubscribed while the server acknowledged the others.
        required = {self._keys.canary, *map(self._keys.live, self._channels)}
        connection.subscribe(*(required - set(subscribed)))
        obsolete = set(subscribed) - required
        if obsolete:
            connection.send("UNSUBSCRIBE", *obsolete)
        return connection

    async def _monitor(self, connection: _Connection) -> None:
        """Ping until the connection is lost. End it if the server was silent for too long."""
        now = asyncio.get_running_loop().time
        limit, interval = self._settings.silence_limit, self._settings.ping_interval
        since = 0.0
        while not self._lost.is_set():
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
            self._listener.canary_received(payload.decode(errors="replace"))
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
