"""One connection in subscriber mode, for an event loop: a small asyncio protocol over hiredis' parser.

redis-py's pub/sub takes several times as long per message, reconnects silently, and does not notice
a silent server. Here the listener gets all publications of one socket read in one turn.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, cast

import hiredis

from eventbus.backends.redis.connections.address import handshake
from eventbus.backends.redis.connections.errors import classify
from eventbus.backends.redis.connections.resp import Command, pack
from eventbus.errors import NotPermitted, TransportError, Unavailable
from eventbus.redis_url import RedisAddress

__all__ = ["SubscriptionConnection"]

log = logging.getLogger(__name__)


class SubscriptionConnection(asyncio.Protocol):
    """One connection in subscriber mode (RESP2): bytes in, callbacks out.

    Args:
        on_message: receives a pub/sub channel and a publication.
        on_turn: called after all publications of one socket read.
        on_lost: receives the reason when the connection has ended.

    Attributes:
        heard: time of the event loop at which the last bytes arrived.
    """

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

    async def authenticate(self, address: RedisAddress, questions: Sequence[Command] = ()) -> list[object]:
        """Send the commands that begin a connection, and questions, in one write.

        Args:
            address: credentials and database.
            questions: commands to run before the first SUBSCRIBE.

        Returns:
            The replies to ``questions``; errors are among them.

        Raises:
            Unavailable: the server does not accept the credentials, or the connection is lost.
        """
        first = handshake(address)
        replies = await asyncio.gather(*(self.request(*command) for command in (*first, *questions)))
        for reply in replies[: len(first)]:
            if isinstance(reply, hiredis.ReplyError):
                raise _refusal(reply)
        return replies[len(first) :]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.Protocol``."""
        # A cast, not a check: uvloop's transports do not inherit from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
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
            self.abort(str(_refusal(reply)))

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
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
        """Close the connection immediately. A normal close would wait for a peer that may be silent.

        Args:
            reason: text for the log.
        """
        log.warning("closing the subscriber connection: %s", reason)
        self.close(reason)

    def close(self, reason: str) -> None:
        """Close the connection immediately, as ``abort`` does, and write nothing into the log.

        Args:
            reason: text for the listener.
        """
        self._reason = reason
        if self._transport is not None:
            self._transport.abort()

    def send(self, *command: str | bytes | int) -> None:
        """Send a command. Its reply arrives in ``data_received``.

        Args:
            command: the command and its arguments.
        """
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(pack(command))

    def request(self, *command: str | bytes | int) -> asyncio.Future[object]:
        """Send a command before the first SUBSCRIBE, such as AUTH or PING.

        Args:
            command: the command and its arguments.

        Returns:
            The future of its reply; the server's error is a reply.
        """
        waiting: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._replies.append(waiting)
        self.send(*command)
        return waiting

    def subscribe(self, *lives: str) -> list[asyncio.Future[None]]:
        """Subscribe to pub/sub channels.

        Args:
            lives: the pub/sub channels.

        Returns:
            One future for each; it ends when the server has acknowledged it.
        """
        acks = []
        for live in lives:
            ack: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._acks[live.encode()].append(ack)
            acks.append(ack)
        if lives:
            self.send("SUBSCRIBE", *lives)
        return acks


def _refusal(reply: hiredis.ReplyError) -> TransportError:
    error = classify(reply)
    return error if isinstance(error, NotPermitted) else Unavailable(f"Redis answered: {reply}")
