"""Follows sentinels for the blocking connections of a process: one thread for each sentinel.

Threads, since a blocking connection has nothing that would read an event while it is idle, and one sentinel that
does not answer must not delay the others.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import weakref
from typing import Final

from eventbus.backends.redis.connections.address import open_socket, sentinel_address
from eventbus.backends.redis.connections.sentinel_protocol import MasterView, SentinelSession
from eventbus.errors import Unavailable
from eventbus.redis_url import Endpoint, RedisAddress
from eventbus.settings import BusSettings

__all__ = ["Sentinels"]

_BYTES: Final = 65_536


class Sentinels:
    """``Locator`` of the master that sentinels name. All connections of a process to one master share it.

    The threads start at first use, again in a forked process, and end when no connection uses the object.

    Args:
        address: an address of kind ``sentinel``.
        settings: time limits.
    """

    def __init__(self, address: RedisAddress, settings: BusSettings) -> None:
        self._address = address
        self._settings = settings
        self._process = 0
        self._begin_view()

    def _begin_view(self) -> None:
        self.changed = threading.Condition()
        self.view = MasterView(len(self._address.nodes))

    def _begin(self) -> None:
        """Start the threads of this process. Those of an earlier call end: their view is not the present one."""
        self._begin_view()
        self._process = os.getpid()
        for number, endpoint in enumerate(self._address.nodes):
            follower = _Follower(self, number, endpoint, self._address, self._settings)
            threading.Thread(target=follower.run, name=f"eventbus-sentinel-{number}", daemon=True).start()

    def locate(self) -> Endpoint:
        """See ``Locator``."""
        if self._process != os.getpid():
            self._begin()
        limit = self._settings.connect_timeout + self._settings.socket_timeout
        with self.changed:
            self.changed.wait_for(lambda: self.view.master is not None, limit)
            return self.view.locate(self._address)

    def holds(self, endpoint: Endpoint) -> bool:
        """See ``Locator``."""
        return self._process == os.getpid() and self.view.master in (None, endpoint)


class _Follower:
    """The thread of one sentinel. It does not keep its owner alive."""

    def __init__(
        self, owner: Sentinels, number: int, endpoint: Endpoint, address: RedisAddress, settings: BusSettings
    ) -> None:
        self._owner = weakref.ref(owner)
        self._view, self._changed = owner.view, owner.changed
        self._number = number
        self._endpoint = endpoint
        self._address = address
        self._settings = settings

    @property
    def _needed(self) -> bool:
        owner = self._owner()
        return owner is not None and owner.view is self._view

    def run(self) -> None:
        while self._needed:
            try:
                self._follow()
            except (OSError, Unavailable) as error:
                with self._changed:
                    self._view.forget(self._number, f"{self._endpoint}: {error}")
                time.sleep(self._settings.ping_interval)

    def _follow(self) -> None:
        session = SentinelSession(self._view, self._number, self._address)
        interval, limit = self._settings.ping_interval, self._settings.silence_limit
        address = sentinel_address(self._address)
        with open_socket(address, self._endpoint, self._settings.connect_timeout) as sock:
            sock.sendall(session.greeting())
            heard = asked = time.monotonic()
            while self._needed:
                sock.settimeout(max(0.01, asked + interval - time.monotonic()))
                try:
                    data = sock.recv(_BYTES)
                except TimeoutError:
                    data = None
                now = time.monotonic()
                if data is not None:
                    heard = now
                    self._take(session, data)
                elif now - heard >= limit:
                    raise Unavailable(f"no reply for {limit:g} s")
                if now - asked >= interval:
                    asked = now
                    _send(sock, session.question(), self._settings.socket_timeout)

    def _take(self, session: SentinelSession, data: bytes) -> None:
        if not data:
            raise Unavailable("the sentinel closed the connection")
        with self._changed:
            try:
                session.feed(data)
            finally:
                self._changed.notify_all()


def _send(sock: socket.socket, data: bytes, seconds: float) -> None:
    sock.settimeout(seconds)
    sock.sendall(data)
