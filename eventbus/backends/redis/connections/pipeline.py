"""Pipelined commands over one connection, for an event loop: a small asyncio protocol over hiredis'
parser.

redis-py's client takes several hundred microseconds a call. Here all calls of one turn of the loop
go out in one write, and replies are assigned in the order of the calls. A cancelled call keeps its
place in that order. Its reply is dropped and can never reach another caller.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import hiredis

from eventbus.backends.redis.connections.address import handshake, open_transport
from eventbus.backends.redis.connections.errors import classify, is_left
from eventbus.backends.redis.connections.locator import AsyncLocator, async_locator
from eventbus.backends.redis.connections.resp import Command, pack
from eventbus.errors import TransportError, Unavailable
from eventbus.redis_url import Endpoint, RedisAddress
from eventbus.settings import BusSettings

__all__ = ["Pipeline", "Reply"]

Reply = Any  # any reply of a server; the callers' decoders take it apart

# Seconds for which a connection stays although its server refuses writes. So a server that does this for long is not
# connected to for each call.
_YOUNG: Final = 0.5


class _Connection(asyncio.Protocol):
    """One connection: commands out, replies in the same order.

    ``limit`` is in seconds. The connection ends if no byte arrives for so long while a reply is
    due. ``holds`` says whether new calls may use it.
    """

    def __init__(self, limit: float, holds: Callable[[], bool]) -> None:
        self._limit = limit
        self._holds = holds
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        # Calls without a reply, the oldest first, each with the time at which it was sent.
        self._due: deque[tuple[asyncio.Future[Reply], float]] = deque()
        self._heard = 0.0
        self._silence_timer: asyncio.TimerHandle | None = None
        self._reason = "closed by the server"
        self._opened = self._loop.time()
        self.greeting: list[Reply] = []
        self.lost = False
        # Another server may have the data: calls that were sent get their replies, and no call follows.
        self.retiring = False

    @property
    def usable(self) -> bool:
        """Whether new calls may use it. A connection to what is no longer the server ends here."""
        if self.lost or self.retiring:
            return False
        if not self._holds():
            self.abort("another server has taken over")
            return False
        return True

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
                    if is_left(str(reply)):
                        self._retire()
                    answer.set_exception(classify(reply))
                else:
                    answer.set_result(reply)
            if self.retiring and not due:
                self.abort("another server may have taken over")
        except hiredis.ProtocolError as error:
            self.abort(f"protocol error: {error}")

    def _retire(self) -> None:
        """Let no call follow. A young connection stays: its server was asked for just now."""
        self.retiring = self.retiring or self._loop.time() - self._opened >= _YOUNG

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
        address: credentials and TLS; default: those of the settings.
        locator: names the server for each new connection; default: the one that the address names.
        questions: commands to run when a connection opens; ``greeting`` has the replies.

    Attributes:
        endpoint: the server of the last connection; None: there was none.
    """

    def __init__(
        self,
        settings: BusSettings,
        *,
        most_waiting: int = 20_000,
        address: RedisAddress | None = None,
        locator: AsyncLocator | None = None,
        questions: Sequence[Command] = (),
    ) -> None:
        self._settings = settings
        self._address = address or settings.redis
        self._locator = locator or async_locator(self._address, settings)
        self._questions = tuple(questions)
        self._most_waiting = most_waiting
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[_Connection] | None = None
        self.endpoint: Endpoint | None = None

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
        if connection is None or not connection.usable:
            connection = await self._connected()
        if connection.waiting >= self._most_waiting:
            raise Unavailable(f"{self._most_waiting} calls wait for Redis already; try again later")
        return await connection.ask(command)

    async def execute_all(self, commands: Sequence[Command]) -> list[Reply]:
        """Run commands in one round trip.

        Args:
            commands: the commands.

        Returns:
            The replies in order.

        Raises:
            Unavailable, Refused: as ``execute``, for the first that failed.
        """
        replies = await self.replies(commands)
        for reply in replies:
            if isinstance(reply, TransportError):
                raise reply
        return replies

    async def replies(self, commands: Sequence[Command]) -> list[Reply]:
        """Run commands in one round trip, and return errors too.

        Args:
            commands: the commands.

        Returns:
            The replies in order; ``Unavailable`` or ``Refused`` for each that failed.

        Raises:
            Unavailable: nothing was sent.
        """
        if not commands:
            return []
        connection = self._connection
        if connection is None or not connection.usable:
            connection = await self._connected()
        if connection.waiting + len(commands) > max(self._most_waiting, len(commands)):
            raise Unavailable(f"{self._most_waiting} calls wait for Redis already; try again later")
        return await asyncio.gather(*map(connection.ask, commands), return_exceptions=True)

    async def connect(self) -> list[Reply]:
        """Connect if there is no connection. Commands that follow in the same turn use the same connection.

        Returns:
            The replies to ``questions`` on this connection; ``Unavailable`` or ``Refused`` for each that failed.

        Raises:
            Unavailable: there is no connection.
        """
        connection = self._connection
        if connection is None or not connection.usable:
            connection = await self._connected()
        return connection.greeting

    async def aclose(self) -> None:
        """Close the connection. All waiting calls get an error."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.abort("closing")
            self._connection = None
        await self._locator.aclose()

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
        """Connect, authenticate, select the database and ask the questions within the time limits."""
        settings, made = self._settings, list[_Connection]()
        endpoint: Endpoint = await self._locator.locate()

        def make() -> _Connection:
            made.append(_Connection(settings.socket_timeout, lambda: self._locator.holds(endpoint)))
            return made[-1]

        try:
            connection = await open_transport(self._address, endpoint, make, settings.connect_timeout)
            first = handshake(self._address)
            # The connection has its own time limit for replies.
            replies = await asyncio.gather(*map(connection.ask, [*first, *self._questions]), return_exceptions=True)
            for reply in replies[: len(first)]:
                if isinstance(reply, BaseException):
                    raise reply
        except BaseException as error:
            for connection in made:
                connection.abort("setting up failed")
            if isinstance(error, TimeoutError):
                text = f"no connection within {settings.connect_timeout:g} s"
                raise Unavailable(f"Redis is not available: {text}") from None
            if isinstance(error, OSError):
                raise Unavailable(f"Redis is not available: {error}") from error
            raise
        connection.greeting = replies[len(first) :]
        self.endpoint = endpoint
        return connection
