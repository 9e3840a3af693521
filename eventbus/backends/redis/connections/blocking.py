"""One blocking connection to Redis: commands out, answers in, in one round trip."""

from __future__ import annotations

# redis-py does so when it connects first, to read its own version; but that is in a thread: see scripts.py.
import email.parser  # noqa: F401
import math
import os
import select
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from eventbus.backends.redis.connections.resp import Command, pack
from eventbus.settings import BusSettings

__all__ = ["BlockingConnection"]

# Bytes that are packed before they are sent, or read at once.
_SLICE: Final = 131_072

# Seconds since its last answer for which a connection is taken to be whole without a look.
_FRESH: Final = 0.1


class BlockingConnection:
    """Made when it is first needed, again after it was lost, and again in a forked process.

    The connection is redis-py's, which knows about addresses, passwords and TLS; its packing, reading and pool are not
    used: they take more CPU time for each command than all the rest of an outbox's thread.

    Beside a task that computes, the interpreter lock is what this waits for: each system call gives it away, and gets
    it back up to five milliseconds later. So there are few of them.

    Attributes:
        limit: seconds that are to be waited for an answer, by somebody who will not wait for a connection to be made;
            None: as the settings say, and it is made.
    """

    def __init__(self, settings: BusSettings) -> None:
        self._settings = settings
        self._maker = redis.ConnectionPool.from_url(
            settings.redis_url,
            protocol=2,
            socket_connect_timeout=settings.connect_timeout,
            socket_timeout=settings.socket_timeout,
            retry=Retry(NoBackoff(), 0),
            socket_keepalive=True,
        )
        self.limit: float | None = None
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._one_at_a_time = threading.Lock()
        self._connection: Any = None
        self._poll: select.poll | None = None
        self._answered = -math.inf

    def round_trip(self, commands: Sequence[Command]) -> list[Any]:
        """Write everything, then read as many answers; errors of the server are among them.

        Raises:
            redis.RedisError, OSError: nothing is known of any of them.
        """
        if self._process != os.getpid():
            self._begin()  # the parent's connection is the parent's
        with self._one_at_a_time:
            line = self._ready()
            try:
                line.settimeout(self._patience)
                _send(line, commands)
                answers = _receive(line, len(commands))
            except BaseException:
                # Answers may be on their way that nobody will read: the connection must not serve anybody else.
                self.close()
                raise
            self._answered = time.monotonic()
            return answers

    @property
    def _patience(self) -> float:
        most = self._settings.socket_timeout
        return most if self.limit is None else max(0.001, min(most, self.limit))

    def _ready(self) -> socket.socket:
        """The connection's socket: one that the server has closed meanwhile is of no use."""
        if self._connection is not None and self._poll is not None:
            fresh = time.monotonic() - self._answered < _FRESH
            if fresh or not self._poll.poll(0) or not _is_stale(self._connection):
                line: socket.socket = self._connection._sock  # noqa: SLF001 - there is no public name for it
                return line
            self.close()
        if self.limit is not None:
            raise redis.ConnectionError("there is no connection")
        self._connection = self._maker.make_connection()
        try:
            self._connection.connect()
        except BaseException:
            self.close()
            raise
        line = self._connection._sock  # noqa: SLF001
        self._poll = select.poll()
        self._poll.register(line.fileno(), select.POLLIN)
        return line

    def close(self) -> None:
        """Give the connection up."""
        connection, self._connection, self._poll = self._connection, None, None
        if connection is not None:
            connection.disconnect()


def _is_stale(connection: Any) -> bool:
    """Whether something has come that nobody asked for, or the end. With TLS there may be something to read that is
    neither.
    """
    try:
        return bool(connection.can_read())
    except (redis.RedisError, OSError):
        return True


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
