"""One blocking connection to Redis: commands out, replies in, one round trip."""

from __future__ import annotations

import math
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import hiredis
import redis

from eventbus.backends.redis.connections.address import handshake, open_socket
from eventbus.backends.redis.connections.errors import is_left
from eventbus.backends.redis.connections.locator import Locator, blocking_locator
from eventbus.backends.redis.connections.resp import Command, pack
from eventbus.redis_url import Endpoint, RedisAddress
from eventbus.settings import BusSettings

__all__ = ["BlockingConnection", "ConnectionReplaced"]

# Bytes of commands that are packed before they are sent, and bytes of one read.
_SLICE: Final = 131_072

# Seconds after a reply for which the connection is assumed to be open without a check.
_FRESH: Final = 0.1


class ConnectionReplaced(redis.ConnectionError):
    """The commands were made for an earlier connection. Nothing was sent."""


class BlockingConnection:
    """Connects at first use, again after a loss, and again in a forked process.

    redis-py's connection takes more CPU time for each command than all the rest of an outbox's
    thread.

    Next to a task that computes, this class mostly waits for the interpreter lock. Each system call
    releases the lock and gets it back up to five milliseconds later. So the class makes few system
    calls.

    Args:
        settings: address and time limits.
        address: credentials and TLS; default: those of the settings.
        locator: names the server for each new connection; default: the one that the address names.
        questions: commands to run when a connection opens; ``greeting`` has the replies.

    Attributes:
        limit: seconds to wait for a reply, for a caller that cannot wait for a new connection;
            None: the time limits of the settings, and a new connection if needed.
        greeting: replies to ``questions`` on the present connection, or on the last one; errors are among them.
        endpoint: the server of the present connection; None: there is no connection.
    """

    def __init__(
        self,
        settings: BusSettings,
        *,
        address: RedisAddress | None = None,
        locator: Locator | None = None,
        questions: Sequence[Command] = (),
    ) -> None:
        self._settings = settings
        self._address = address or settings.redis
        self._locator = locator or blocking_locator(self._address, settings)
        self._questions = tuple(questions)
        self.limit: float | None = None
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._readable: Callable[[], bool] | None = None
        self._replied = -math.inf
        self.greeting: list[Any] = []
        self.endpoint: Endpoint | None = None

    @property
    def named(self) -> bool:
        """Whether the present connection leads to the server that the address names now."""
        return self.endpoint is not None and self._locator.holds(self.endpoint)

    def connect(self) -> list[Any]:
        """Connect if there is no connection. The next round trip follows on the same connection if it is soon.

        Returns:
            ``greeting``.

        Raises:
            redis.RedisError, OSError, EventBusError: there is no connection.
        """
        if self._process != os.getpid():
            self._begin()
        with self._lock:
            self._ready()
            return self.greeting

    def round_trip(
        self, commands: Sequence[Command], patience: float = 0.0, greeting: list[Any] | None = None
    ) -> list[Any]:
        """Send all commands, then read as many replies.

        Args:
            commands: the commands.
            patience: seconds that the server may wait within a command, beyond the time limit.
            greeting: ``greeting`` of the connection that the commands were made for; None: any connection.

        Returns:
            The replies in order. Errors that the server replied are among them. After one that says that
            another server may have taken over, the connection is closed.

        Raises:
            ConnectionReplaced: the present connection is another one; nothing was sent.
            redis.RedisError, OSError, EventBusError: the outcome of all commands is unknown.
        """
        if self._process != os.getpid():
            self._begin()  # the connection belongs to the parent process
        with self._lock:
            sock = self._ready()
            if greeting is not None and greeting is not self.greeting:
                raise ConnectionReplaced("a new connection was made")
            try:
                sock.settimeout(self._timeout + patience)
                _send(sock, commands)
                replies = _receive(sock, len(commands))
            except BaseException:
                # Unread replies may still arrive, so the connection must not serve another caller.
                self.close()
                raise
            self._replied = time.monotonic()
            if any(isinstance(reply, redis.ResponseError) and is_left(str(reply)) for reply in replies):
                self.close()
            return replies

    def send(self, commands: Sequence[Command], greeting: list[Any] | None = None) -> None:
        """Send commands. ``receive`` reads their replies; no other call may come between.

        One thread can so ask several servers at the same time.

        Args:
            commands: the commands.
            greeting: as in ``round_trip``.

        Raises:
            redis.RedisError, OSError, EventBusError: as ``round_trip``.
        """
        if self._process != os.getpid():
            self._begin()
        sock = self._ready()
        if greeting is not None and greeting is not self.greeting:
            raise ConnectionReplaced("a new connection was made")
        try:
            sock.settimeout(self._timeout)
            _send(sock, commands)
        except BaseException:
            self.close()
            raise

    def receive(self, number: int, patience: float = 0.0) -> list[Any]:
        """Read the replies to the commands that were sent.

        Args:
            number: number of replies.
            patience: as in ``round_trip``.

        Returns:
            The replies in order. Errors that the server replied are among them.

        Raises:
            redis.RedisError, OSError: as ``round_trip``.
        """
        if self._socket is None:
            raise redis.ConnectionError("there is no connection")
        try:
            self._socket.settimeout(self._timeout + patience)
            replies = _receive(self._socket, number)
        except BaseException:
            self.close()
            raise
        self._replied = time.monotonic()
        return replies

    @property
    def _timeout(self) -> float:
        most = self._settings.socket_timeout
        return most if self.limit is None else max(0.001, min(most, self.limit))

    def _ready(self) -> socket.socket:
        """Return the connection's socket. If the server has closed it, or is another one now, connect again."""
        if self._socket is not None and self._readable is not None and self.endpoint is not None:
            fresh = time.monotonic() - self._replied < _FRESH
            if self._locator.holds(self.endpoint) and (fresh or not self._readable() or not _is_stale(self._socket)):
                return self._socket
            self.close()
        if self.limit is not None:
            raise redis.ConnectionError("there is no connection")
        endpoint = self._locator.locate()
        self._socket = sock = open_socket(self._address, endpoint, self._settings.connect_timeout)
        try:
            self.greeting = self._greet(sock)
            self._readable = _readable(sock)
        except BaseException:
            self.close()
            raise
        self.endpoint = endpoint
        self._replied = time.monotonic()
        return sock

    def _greet(self, sock: socket.socket) -> list[Any]:
        """Authenticate, select the database and ask the questions, in one round trip."""
        first = handshake(self._address)
        commands = [*first, *self._questions]
        if not commands:
            return []
        sock.settimeout(self._settings.socket_timeout)
        _send(sock, commands)
        replies = _receive(sock, len(commands))
        for reply in replies[: len(first)]:
            if isinstance(reply, redis.ResponseError):
                raise reply
        return replies[len(first) :]

    def close(self) -> None:
        """Close the connection. The next round trip makes a new one."""
        sock, self._socket, self._readable, self.endpoint = self._socket, None, None, None
        if sock is not None:
            sock.close()


def _readable(sock: socket.socket) -> Callable[[], bool]:
    """Return a function that says whether the socket has something to read.

    Windows has no ``poll``, and eventlet removes it. ``select`` cannot use descriptors from 1,024 on.
    """
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        return lambda: bool(poll.poll(0))
    return lambda: bool(select.select([sock], [], [], 0)[0])


def _is_stale(sock: socket.socket) -> bool:
    """Whether an unrequested reply or the end has arrived. TLS may have other bytes to read."""
    sock.settimeout(0)
    try:
        sock.recv(1)
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        pass
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
