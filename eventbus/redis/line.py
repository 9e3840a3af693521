"""One blocking connection: commands out in slices, as many answers back."""

from __future__ import annotations

# redis-py does so when it connects first, to read its own version; but that is in a thread: see scripts.py.
import email.parser  # noqa: F401
import math
import os
import socket
import time
from collections.abc import Sequence
from typing import Any, Final

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from eventbus.redis.resp import Command, pack
from eventbus.settings import BusSettings

__all__ = ["Line"]

# Bytes that are packed before they are sent, or read at once.
_SLICE: Final = 131_072

# Seconds since its last answer for which a connection is taken to be whole without a look.
_FRESH: Final = 0.1


class Line:
    """redis-py's connection, which knows about addresses, passwords and TLS; its packing and reading are not used: they
    take more CPU time for each command than all the rest of an outbox's thread.

    Beside a task that computes, the interpreter lock is what this waits for: each system call gives it away, and gets
    it back up to five milliseconds later. So there are few of them.
    """

    def __init__(self, settings: BusSettings) -> None:
        self._pool = redis.ConnectionPool.from_url(
            settings.redis_url,
            protocol=2,
            socket_connect_timeout=settings.connect_timeout,
            socket_timeout=settings.socket_timeout,
            retry=Retry(NoBackoff(), 0),
            socket_keepalive=True,
            max_connections=2,
        )
        self._connection: Any = None
        self._answered = -math.inf
        self._process = 0

    def round_trip(self, commands: Sequence[Command]) -> list[Any]:
        """Write everything, then read as many answers; errors of the server are among them.

        Raises:
            redis.RedisError, OSError: nothing is known of any of them.
        """
        connection = self._whole()
        try:
            line: socket.socket = connection._sock  # noqa: SLF001 - see above; there is no public name for it
            _send(line, commands)
            replies = _receive(line, len(commands))
        except BaseException:
            # Answers may be on their way that nobody will read: the connection must not serve anybody else.
            self._connection = None
            connection.disconnect()
            self._pool.release(connection)
            raise
        self._answered = time.monotonic()
        return replies

    def close(self) -> None:
        """Give up the connection; the next round trip makes another."""
        self._connection = None
        self._pool.disconnect()

    def _whole(self) -> Any:
        """The connection; unless it was just used, redis-py looks at it, and replaces one that the server closed."""
        held, process = self._connection, os.getpid()
        if held is not None and process == self._process:
            if time.monotonic() - self._answered < _FRESH:
                return held
            self._pool.release(held)
        self._connection = None  # should the next line fail
        self._connection, self._process = self._pool.get_connection(), process
        return self._connection


def _send(line: socket.socket, commands: Sequence[Command]) -> None:
    """In slices: the server works on one while the next is packed."""
    packed: list[bytes] = []
    size = 0
    for command in commands:
        packed.append(pack(command))
        size += len(packed[-1])
        if size >= _SLICE:
            line.sendall(b"".join(packed))
            packed.clear()
            size = 0
    if packed:
        line.sendall(b"".join(packed))


def _receive(line: socket.socket, count: int) -> list[Any]:
    reader = hiredis.Reader(protocolError=redis.ConnectionError, replyError=redis.ResponseError)
    replies: list[Any] = []
    while len(replies) < count:
        data = line.recv(_SLICE)
        if not data:
            raise redis.ConnectionError("the server closed the connection")
        reader.feed(data)
        while (reply := reader.gets()) is not False:
            replies.append(reply)
    return replies
