"""Commands from an event loop over one connection: a small asyncio protocol over hiredis' parser.

redis-py's client costs several hundred microseconds a call. Here all calls of one turn of the loop go out in one write,
and answers are given out in the order in which they were asked for. A caller that has been cancelled keeps its place in
that order: its answer is thrown away, and can never reach somebody else.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import Any, cast

import hiredis
import redis
from redis.asyncio.connection import SSLConnection, parse_url

from eventbus.backends.redis.connections.resp import Command, pack
from eventbus.errors import Refused, Unavailable
from eventbus.settings import BusSettings

__all__ = ["Pipeline", "Reply", "ScriptUnknown", "refusal_of"]

Reply = Any  # what a server may answer; taken apart by the callers' decoders

# Answers that say "not now": the same call will work when the server has recovered.
_PASSING = (
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "TRYAGAIN",
)


class ScriptUnknown(Refused):
    """The server has not been given this script, or lost it."""


def refusal_of(answer: hiredis.ReplyError) -> Unavailable | Refused:
    """Our word for an error that the server answered: worth another try, or not."""
    text = str(answer)
    if text.startswith("NOSCRIPT"):
        return ScriptUnknown(text)
    if text.startswith(_PASSING):
        return Unavailable(f"Redis is not available: {text}")
    return Refused(f"Redis refused: {text}")


class _Connection(asyncio.Protocol):
    """One connection: commands out, answers in the same order. ``limit``: seconds without a byte while one is due."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        # Oldest first, with the time at which each was asked.
        self._due: deque[tuple[asyncio.Future[Reply], float]] = deque()
        self._heard = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._reason = "closed by the server"
        self.lost = False

    @property
    def waiting(self) -> int:
        """Answers that are due."""
        return len(self._due)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, not a check: uvloop's transports do not inherit from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def ask(self, command: Command) -> asyncio.Future[Reply]:
        """Send a command with all others of this turn; its answer."""
        answer: asyncio.Future[Reply] = self._loop.create_future()
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(pack(command))
        self._due.append((answer, self._loop.time()))
        if self._watch is None:
            self._watch = self._loop.call_later(self._limit, self._look)
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
                    self.abort("it answered what nobody asked")
                    return
                answer, _ = due.popleft()
                if answer.done():
                    continue  # cancelled; this was its answer, and nobody else's
                if isinstance(reply, hiredis.ReplyError):
                    answer.set_exception(refusal_of(reply))
                else:
                    answer.set_result(reply)
        except hiredis.ProtocolError as error:
            self.abort(f"protocol error: {error}")

    def _look(self) -> None:
        """One timer for all calls: has the server been silent for too long, with an answer due?

        Event loops look at their sockets before their timers: after a busy while, what has come has been read by now.
        """
        self._watch = None
        if not self._due:
            return
        since = max(self._heard, self._due[0][1])
        left = since + self._limit - self._loop.time()
        if left <= 0:
            self.abort(f"no answer for {self._limit:g} s")
        else:
            self._watch = self._loop.call_later(left, self._look)

    def abort(self, reason: str) -> None:
        """End at once; whoever waits is told."""
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
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        error = Unavailable(f"Redis is not available: {self._reason}")
        due, self._due = self._due, deque()
        for answer, _ in due:
            if not answer.done():
                answer.set_exception(error)
                answer.exception()  # whoever waits is told; nobody waiting is no fault


class Pipeline:
    """One connection, made when it is first needed and again after it was lost. Nothing is sent twice.

    ``most_waiting``: calls that may wait for their answers; one more is refused at once.
    """

    def __init__(self, settings: BusSettings, *, most_waiting: int = 20_000) -> None:
        self._settings = settings
        self._most_waiting = most_waiting
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[_Connection] | None = None

    async def execute(self, command: Command) -> Reply:
        """Run one command.

        Raises:
            Unavailable: it may or may not have been carried out.
            Refused: the server will not do it; ScriptUnknown if it does not have the script.
        """
        connection = self._connection
        if connection is None or connection.lost:
            connection = await self._connected()
        if connection.waiting >= self._most_waiting:
            raise Unavailable(f"{self._most_waiting} calls wait for Redis already; try again later")
        return await connection.ask(command)

    async def execute_all(self, commands: list[Command]) -> list[Reply]:
        """Run commands in one round trip. Raises as ``execute``, for the first that failed."""
        if not commands:
            return []
        connection = self._connection
        if connection is None or connection.lost:
            connection = await self._connected()
        if connection.waiting + len(commands) > max(self._most_waiting, len(commands)):
            raise Unavailable(f"{self._most_waiting} calls wait for Redis already; try again later")
        return list(await asyncio.gather(*map(connection.ask, commands)))

    async def aclose(self) -> None:
        """End the connection; whoever waits is told."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.abort("closing")
            self._connection = None

    async def _connected(self) -> _Connection:
        """The connection; made once for all who wait for it, whoever of them gives up."""
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
        """Connect, authenticate and choose the database, within the time limits."""
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
            # The connection has its own limit for answers.
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
