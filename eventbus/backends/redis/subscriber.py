"""Live publications from Redis: a small asyncio protocol over hiredis' parser.

redis-py's pub/sub costs several times as much per message, re-subscribes without a word, and leaves a silent server
unnoticed. Here everything of one socket read is handed over in one turn, a ping that stays without its answer ends the
connection, and the listener is told of every loss.
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

_ONE_MORE_LOOK = 0.01  # seconds


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
        # One for each SUBSCRIBE sent, oldest first: Redis acknowledges each, and an UNSUBSCRIBE may stand between two.
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
                future.exception()  # whoever waits is told; nobody waiting is no fault
        self._acks.clear()
        self._replies.clear()
        self._on_lost(reason)

    def abort(self, reason: str) -> None:
        """End at once, without waiting for a peer that may be silent."""
        log.warning("leaving the subscriber connection: %s", reason)
        self._reason = reason
        if self._transport is not None:
            self._transport.abort()

    def send(self, *command: str) -> None:
        """Write a command; its answer comes to ``data_received``."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(pack(command))

    def ask(self, *command: str) -> asyncio.Future[object]:
        """Send a command outside the subscription (AUTH, PING before the first SUBSCRIBE)."""
        waiting: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._replies.append(waiting)
        self.send(*command)
        return waiting

    def subscribe(self, *lives: str) -> list[asyncio.Future[None]]:
        """Subscribe; one future for each, done when the server has acknowledged it."""
        acks = []
        for live in lives:
            ack: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._acks[live.encode()].append(ack)
            acks.append(ack)
        if lives:
            self.send("SUBSCRIBE", *lives)
        return acks


class RedisSubscriber:
    """``Subscriber`` over one connection that mends itself: backoff with full jitter, everything subscribed again."""

    def __init__(self, settings: BusSettings) -> None:
        self._settings = settings
        self._keys = Keys(settings.key_prefix)
        self._echo = self._keys.canary.encode()
        self._listener: Listener | None = None
        self._wanted: set[str] = set()
        self._connection: _Connection | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()

    async def start(self, listener: Listener) -> None:
        """See ``Subscriber``. Returns at once; a Redis that is not there yet is waited for in the background."""
        self._listener = listener
        self._keeper = asyncio.create_task(self._keep_connected(), name="eventbus-subscriber")

    async def subscribe(self, channel: str) -> None:
        """See ``Subscriber``."""
        self._wanted.add(channel)
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
        self._wanted.discard(channel)
        if self._connection is not None:
            self._connection.send("UNSUBSCRIBE", self._keys.live(channel))

    def reconnect(self, reason: str) -> None:
        """See ``Subscriber``."""
        if self._connection is not None:
            self._connection.abort(reason)

    async def aclose(self) -> None:
        """See ``Subscriber``."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        if self._connection is not None:
            self._connection.abort("closing")

    async def _keep_connected(self) -> None:
        failures = 0
        while True:
            try:
                connection = await self._connect()
            except (OSError, TimeoutError, Unavailable) as error:
                failures += 1
                log.warning("Redis cannot be reached for pub/sub: %s", error)
                await asyncio.sleep(jitter(ceiling(failures, self._settings.retry_min, self._settings.retry_max)))
                continue
            failures = 0
            assert self._listener is not None
            self._listener.restored()
            await self._watch(connection)

    async def _connect(self) -> _Connection:
        """Connect, authenticate and subscribe to everything wanted, within the time limits."""
        loop = asyncio.get_running_loop()
        self._lost.clear()
        url = urlsplit(self._settings.redis_url)
        connection = _Connection(self._message, self._turn, self._connection_lost)
        if url.scheme == "unix":
            opening = loop.create_unix_connection(lambda: connection, url.path)
        else:
            tls = ssl.create_default_context() if url.scheme == "rediss" else None
            opening = loop.create_connection(lambda: connection, url.hostname or "127.0.0.1", url.port or 6379, ssl=tls)
        # asyncio.timeout throughout: before Python 3.12 wait_for swallows a cancellation that comes with the result.
        async with asyncio.timeout(self._settings.connect_timeout):
            await opening
        try:
            async with asyncio.timeout(self._settings.socket_timeout):
                if url.password:
                    user = (unquote(url.username),) if url.username else ()
                    await connection.ask("AUTH", *user, unquote(url.password))
                reply = await connection.ask("PING")
                if isinstance(reply, hiredis.ReplyError):
                    raise Unavailable(f"Redis answered: {reply}")
                # One channel is always subscribed: it keeps the connection in subscriber mode and serves as probe.
                wanted = (self._keys.canary, *map(self._keys.live, self._wanted))
                await asyncio.gather(*connection.subscribe(*wanted))
        except BaseException:
            connection.abort("setting up failed")
            raise
        self._connection = connection
        # A channel may have been asked for, or given up, while the others were being acknowledged.
        now_wanted = {self._keys.canary, *map(self._keys.live, self._wanted)}
        connection.subscribe(*(now_wanted - set(wanted)))
        given_up = set(wanted) - now_wanted
        if given_up:
            connection.send("UNSUBSCRIBE", *given_up)
        return connection

    async def _watch(self, connection: _Connection) -> None:
        """Ping until the connection is lost, or ends it when the server has been silent for too long."""
        now = asyncio.get_running_loop().time
        limit, interval = self._settings.silence_limit, self._settings.ping_interval
        since = 0.0
        while not self._lost.is_set():
            connection.send("PING")
            pause = min(interval, max(max(connection.heard, since) + limit - now(), 0.0))
            due = now() + pause
            await self._lost_within(pause)
            if now() - due > interval:
                # The event loop was busy, and did not ask: the silence was ours.
                since = now()
            if now() - max(connection.heard, since) >= limit:
                # What has come in this very moment has not been read yet.
                await self._lost_within(_ONE_MORE_LOOK)
                if now() - max(connection.heard, since) >= limit:
                    connection.abort(f"nothing came for {limit:g} s, not even an answer to PING")
                    await self._lost.wait()

    async def _lost_within(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._lost.wait()

    def _message(self, live: bytes, payload: bytes) -> None:
        assert self._listener is not None
        if live == self._echo:
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
