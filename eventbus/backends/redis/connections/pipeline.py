"""Pipelined commands over one connection, for an event loop: a small asyncio protocol over hiredis'
parser.

redis-py's client takes several hundred microseconds a call. Here all calls of one turn of the loop
go out in one write, and replies are assigned in the order of the calls. A cancelled call keeps its
place in that order. Its reply is dropped and can never reach another caller.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import Any, cast

import hiredis
import redis
from redis.asyncio.connection import SSLConnection, parse_url

from eventbus.backends.redis.connections.errors import classify
from eventbus.backends.redis.connections.resp import Command, pack
from eventbus.errors import Unavailable
from eventbus.settings import BusSettings

__all__ = ["Pipeline", "Reply"]

Reply = Any  # any reply of a server; the callers' decoders take it apart


class _Connection(asyncio.Protocol):
    """One connection: commands out, replies in the same order.

    ``limit`` is in seconds. The connection ends if no byte arrives for so long while a reply is
    due.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        # Calls without a reply, the oldest first, each with the time at which it was sent.
        self._due: deque[tuple[asyncio.Future[Reply], float]] = deque()
        self._heard = 0.0
        self._silence_timer: asyncio.TimerHandle | None = None
        self._reason = "closed by the server"
        self.lost = False

    @property
    def waiting(self) -> int:
        """Number of calls without a reply."""
        return len(self._due)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, not a check: uvloop's transports do not inherit from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def ask(self, command: Command) -> asyncio.Future[Reply]:
        """Send a command with the others of this turn. Returns the future of its reply."""
        answer: asyncio.Future[Reply] = self._loop.create_future()
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(pack(command))
        self._due.append((answer, self._loop.time()))
        if self._silence_timer is None:
            self._silence_timer = self._loop.call_later(self._limit, self._check_silence)
        return answer

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and not self.lost:
            self._transport.write(b"".join(out))

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        reader, due = self._reader, self._due
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not False:
                if not due:
                    self.abort("a reply without a call arrived")
                    return
                answer, _ = due.popleft()
                if answer.done():
                    continue  # the call was cancelled
                if isinstance(reply, hiredis.ReplyError):
                    answer.set_exception(classify(reply))
                else:
                    answer.set_result(reply)
        except hiredis.ProtocolError as error:
            self.abort(f"protocol error: {error}")

    def _check_silence(self) -> None:
        """Check whether the server was silent for too long while a reply is due. All calls share
        this timer.

        Event loops read their sockets before they run timers, so all bytes that arrived have been
        read by now.
        """
        self._silence_timer = None
        if not self._due:
            return
        since = max(self._heard, self._due[0][1])
        left = since + self._limit - self._loop.time()
        if left <= 0:
            self.abort(f"no reply for {self._limit:g} s")
        else:
            self._silence_timer = self._loop.call_later(left, self._check_silence)

    def abort(self, reason: str) -> None:
        """Close the connection immediately. All waiting calls get an error."""
        self._reason = reason
        if self._transport is not None:
            self._transport.abort()
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._reason = str(exc)
        self._end()

    def _end(self) -> None:
        self.lost = True
        if self._silence_timer is not None:
            self._silence_timer.cancel()
            self._silence_timer = None
        error = Unavailable(f"Redis is not available: {self._reason}")
        due, self._due = self._due, deque()
        for answer, _ in due:
            if not answer.done():
                answer.set_exception(error)
                answer.exception()  # marks it as retrieved: asyncio need not warn if no call waits


class Pipeline:
    """A connection that is made at first use and again after a loss. It never sends a command
    twice.

    Args:
        settings: address and time limits.
        most_waiting: maximum number of calls that wait for a reply. A further call fails
            immediately.
    """

    def __init__(self, settings: BusSettings, *, most_waiting: int = 20_000) -> None:
        self._settings = settings
        self._most_waiting = most_waiting
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[_Connection] | None = None

    async def execute(self, command: Command) -> Reply:
        """Run one command.

        Args:
            command: the command.

        Returns:
            The reply.

        Raises:
            Unavailable: the server may or may not have carried it out.
            Refused: the server rejects it; ``ScriptUnknown`` if it does not have the script.
        """
        connection = self._connection
        if connection is None or connection.lost:
            connection = await self._connected()
        if connection.waiting >= self._most_waiting:
            raise Unavailable(f"{self._most_waiting} calls wait for Redis already; try again later")
        return await connection.ask(command)

    async def execute_all(self, commands: list[Command]) -> list[Reply]:
        """Run commands in one round trip.

        Args:
            commands: the commands.

        Returns:
            The replies in order.

        Raises:
            Unavailable, Refused: as ``execute``, for the first that failed.
        """
        if not commands:
            return []
        connection = self._connection
        if connection is None or connection.lost:
            connection = await self._connected()
        if connection.waiting + len(commands) > max(self._most_waiting, len(commands)):
            raise Unavailable(f"{self._most_waiting} calls wait for Redis already; try again later")
        return list(await asyncio.gather(*map(connection.ask, commands)))

    async def aclose(self) -> None:
        """Close the connection. All waiting calls get an error."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.abort("closing")
            self._connection = None

    async def _connected(self) -> _Connection:
        """Return the connection. All waiting calls share one attempt, which goes on if one of them
        is cancelled.
        """
        connecting = self._connecting
        if connecting is None:
            connecting = self._connecting = asyncio.create_task(self._connect())
            connecting.add_done_callback(self._connecting_ended)
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            if connecting.cancelled():
                raise Unavailable("Redis is not available: closing") from None
            raise

    def _connecting_ended(self, task: asyncio.Task[_Connection]) -> None:
        self._connecting = None
        if not task.cancelled() and task.exception() is None:
            self._connection = task.result()

    async def _connect(self) -> _Connection:
        """Connect, authenticate and select the database within the time limits."""
        settings, where = self._settings, cast("dict[str, Any]", parse_url(self._settings.redis_url))
        loop = asyncio.get_running_loop()
        connection = _Connection(settings.socket_timeout)
        try:
            async with asyncio.timeout(settings.connect_timeout):
                if "path" in where:
                    await loop.create_unix_connection(lambda: connection, where["path"])
                else:
                    tls = _tls(where) if where.get("connection_class") is SSLConnection else None
                    host, port = where.get("host", "localhost"), where.get("port", 6379)
                    await loop.create_connection(lambda: connection, host, port, ssl=tls)
            # The connection has its own time limit for replies.
            if where.get("password"):
                user = (where["username"],) if where.get("username") else ()
                await connection.ask(("AUTH", *user, where["password"]))
            if where.get("db"):
                await connection.ask(("SELECT", where["db"]))
        except TimeoutError:
            connection.abort("setting up failed")
            raise Unavailable(f"Redis is not available: no connection within {settings.connect_timeout:g} s") from None
        except (OSError, redis.RedisError) as error:
            connection.abort("setting up failed")
            raise Unavailable(f"Redis is not available: {error}") from error
        except BaseException:
            connection.abort("setting up failed")
            raise
        return connection


def _tls(where: dict[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=where.get("ssl_ca_certs"))
    if where.get("ssl_certfile"):
        context.load_cert_chain(where["ssl_certfile"], where.get("ssl_keyfile"))
    if where.get("ssl_cert_reqs") == "none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
