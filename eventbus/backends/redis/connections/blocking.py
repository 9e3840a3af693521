"""One blocking connection to Redis: commands out, replies in, one round trip."""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from eventbus.backends.redis.connections.resp import Command, pack
from eventbus.settings import BusSettings

__all__ = ["BlockingConnection"]

# redis-py reads its own version at its first connection. That is in a thread: see script.py. Python imports
# modules for it, and which ones depends on Python's version.
with contextlib.suppress(importlib.metadata.PackageNotFoundError):
    importlib.metadata.version("redis")

# Bytes of commands that are packed before they are sent, and bytes of one read.
_SLICE: Final = 131_072

# Seconds after a reply for which the connection is assumed to be open without a check.
_FRESH: Final = 0.1


class BlockingConnection:
    """Connects at first use, again after a loss, and again in a forked process.

    redis-py makes the connection, since it knows addresses, passwords and TLS. This class does not
    use its packing, reading and pool: they take more CPU time for each command than all the rest of
    an outbox's thread.

    Next to a task that computes, this class mostly waits for the interpreter lock. Each system call
    releases the lock and gets it back up to five milliseconds later. So the class makes few system
    calls.

    Args:
        settings: address and time limits.

    Attributes:
        limit: seconds to wait for a reply, for a caller that cannot wait for a new connection;
            None: the time limits of the settings, and a new connection if needed.
    """

    def __init__(self, settings: BusSettings) -> None:
        self._settings = settings
        self._pool = redis.ConnectionPool.from_url(
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
        self._lock = threading.Lock()
        self._connection: Any = None
        self._readable: Callable[[], bool] | None = None
        self._replied = -math.inf

    def round_trip(self, commands: Sequence[Command]) -> list[Any]:
        """Send all commands, then read as many replies.

        Args:
            commands: the commands.

        Returns:
            The replies in order. Errors that the server replied are among them.

        Raises:
            redis.RedisError, OSError: the outcome of all commands is unknown.
        """
        if self._process != os.getpid():
            self._begin()  # the connection belongs to the parent process
        with self._lock:
            sock = self._ready()
            try:
                sock.settimeout(self._timeout)
                _send(sock, commands)
                replies = _receive(sock, len(commands))
            except BaseException:
                # Unread replies may still arrive, so the connection must not serve another caller.
                self.close()
                raise
            self._replied = time.monotonic()
            return replies

    @property
    def _timeout(self) -> float:
        most = self._settings.socket_timeout
        return most if self.limit is None else max(0.001, min(most, self.limit))

    def _ready(self) -> socket.socket:
        """Return the connection's socket. If the server has closed it, connect again."""
        if self._connection is not None and self._readable is not None:
            fresh = time.monotonic() - self._replied < _FRESH
            if fresh or not self._readable() or not _is_stale(self._connection):
                sock: socket.socket = self._connection._sock  # noqa: SLF001 - there is no public name for it
                return sock
            self.close()
        if self.limit is not None:
            raise redis.ConnectionError("there is no connection")
        self._connection = self._pool.make_connection()
        try:
            self._connection.connect()
        except BaseException:
            self.close()
            raise
        sock = self._connection._sock  # noqa: SLF001
        self._readable = _readable(sock)
        return sock

    def close(self) -> None:
        """Close the connection. The next round trip makes a new one."""
        connection, self._connection, self._readable = self._connection, None, None
        if connection is not None:
            connection.disconnect()


def _readable(sock: socket.socket) -> Callable[[], bool]:
    """Return a function that says whether the socket has something to read.

    Windows has no ``poll``, and eventlet removes it. ``select`` cannot use descriptors from 1,024 on.
    """
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        return lambda: bool(poll.poll(0))
    return lambda: bool(select.select([sock], [], [], 0)[0])


def _is_stale(connection: Any) -> bool:
    """Whether an unrequested reply or the end has arrived. TLS may have other bytes to read."""
    try:
        return bool(connection.can_read())
    except (redis.RedisError, OSError):
        return True


def _send(sock: socket.socket, commands: Sequence[Command]) -> None:
    """Send in slices: the server works on one while the next is packed."""
    packed: list[bytes] = []
    size = 0
    for command in commands:
        packed.append(pack(command))
        size += len(packed[-1])
        if size >= _SLICE:
            sock.sendall(b"".join(packed))
            packed.clear()
            size = 0
    if packed:
        sock.sendall(b"".join(packed))


def _receive(sock: socket.socket, count: int) -> list[Any]:
    reader = hiredis.Reader(protocolError=redis.ConnectionError, replyError=redis.ResponseError)
    replies: list[Any] = []
    while len(replies) < count:
        data = sock.recv(_SLICE)
        if not data:
            raise redis.ConnectionError("the server closed the connection")
        reader.feed(data)
        while (reply := reader.gets()) is not False:
            replies.append(reply)
    return replies
