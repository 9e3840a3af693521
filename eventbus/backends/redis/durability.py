"""Durable mode: an event counts as published when the replicas have it too. The decisions, without I/O.

WAIT is a command behind the scripts of a round trip, on their connection. Within a script or MULTI it says nothing
about what the script writes. Its count is right only for a connection that has written: a repeated event writes
nothing, so a small key is written before it.

All replicas must have the event, since any of them may be promoted. While one is promoted, the old master still
takes writes, and its other replicas still confirm them. So a replica that has left keeps counting for a while. The
small key names the number that counts, for a process that starts in that while.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from eventbus.backends.redis.connections.resp import Command
from eventbus.errors import Unavailable
from eventbus.redis_url import Endpoint
from eventbus.settings import BusSettings

__all__ = ["Durability", "replicas_online"]

_MARK_S: Final = 86_400  # life of the small key
# Its content: the life of the server's data, how many replicas count, when fewer were first seen (ms; 0: never).
_MARK: Final = re.compile(rb"([0-9a-f]+) (\d{1,4}) (\d{1,15})")
_LIFE: Final = re.compile(rb"^master_replid:([0-9a-f]{10})", re.MULTILINE)
# A replica that still loads its first copy has confirmed nothing: its offset is 0.
_ONLINE: Final = re.compile(rb"^slave\d+:.*\bstate=online,offset=[1-9]", re.MULTILINE)


def replicas_online(info: object) -> int | None:
    """Return how many replicas follow a server.

    Args:
        info: reply to ``INFO replication``.

    Returns:
        The number; None if the server did not say it.
    """
    return len(_ONLINE.findall(info)) if isinstance(info, bytes) else None


class Durability:
    """Which replicas must confirm, and whether they did.

    Args:
        settings: number of replicas and time limits.
        key: name of the small key.

    Attributes:
        key: name of the small key.
    """

    QUESTION: Final[Command] = ("INFO", "replication")
    """Asked when a connection opens, and after each WAIT."""

    @property
    def questions(self) -> list[Command]:
        """The commands whose replies ``connected`` needs."""
        return [self.QUESTION, ("GET", self.key)]

    def __init__(self, settings: BusSettings, key: str) -> None:
        self._fixed = settings.durable_replicas
        self._grace = settings.durable_grace
        self._limit = settings.durable_timeout
        self.key = key
        self._server: Endpoint | None = None
        self._life = ""
        # Numbers of replicas that followed, the highest first -> when fewer were seen; None: the present number.
        self._followed: dict[int, float | None] = {}

    @property
    def required(self) -> int:
        """Number of replicas that must confirm."""
        return self._fixed or max(self._followed, default=1) or 1

    def connected(self, server: Endpoint, replies: Sequence[Any], now: float, now_ms: int) -> None:
        """Note a new connection. Another server begins a new count, with what other processes know of it.

        Args:
            server: the server.
            replies: its replies to ``questions``.
            now: seconds of a monotonic clock.
            now_ms: milliseconds since 1970.
        """
        info, mark = replies
        found = _LIFE.search(info) if isinstance(info, bytes) else None
        self._life = found[1].decode() if found is not None else ""
        if server != self._server:
            self._server, self._followed = server, {}
            known = _MARK.fullmatch(mark) if isinstance(mark, bytes) else None
            if known is not None and known[1].decode() == self._life:
                fewer = int(known[3])
                self._followed = {int(known[2]): now - max(0, now_ms - fewer) / 1000 if fewer else None}
        self._count(info, now)

    def _mark(self, now: float, now_ms: int) -> str:
        number = max(self._followed, default=0)
        fewer = self._followed.get(number)
        return f"{self._life} {number} {0 if fewer is None else now_ms - int((now - fewer) * 1000)}"

    def commands(self, seconds: float | None, now: float, now_ms: int) -> list[Command]:
        """Return the commands that follow the scripts of a round trip.

        Args:
            seconds: the caller's time limit; None: that of the settings.
            now: seconds of a monotonic clock.
            now_ms: milliseconds since 1970.
        """
        limit = self._limit if seconds is None else min(self._limit, seconds * 0.8)
        return [
            ("SET", self.key, self._mark(now, now_ms), "EX", _MARK_S),
            ("WAIT", self.required, max(1, int(limit * 1000))),
            self.QUESTION,
        ]

    def check(self, replies: Sequence[Any], *, named: bool, now: float) -> None:
        """Draw the conclusion from the replies to ``commands``.

        Args:
            replies: the replies.
            named: whether the server is still the one that the address names.
            now: seconds of a monotonic clock.

        Raises:
            Unavailable: it is unknown whether the events survive a failover. Publishing them again is safe.
        """
        marked, confirmed, info = replies
        required = self.required
        self._count(info, now)
        if not named:
            raise Unavailable("another server has taken over; the events are sent again")
        if isinstance(marked, Exception):
            raise Unavailable(f"Redis did not take the key before WAIT: {marked}; the events are sent again")
        if not isinstance(confirmed, int):
            raise Unavailable(f"Redis did not wait for its replicas: {confirmed}")
        if confirmed < required:
            raise Unavailable(
                f"{confirmed} of {required} replicas confirmed within {self._limit:g} s (EVENTBUS_DURABLE); "
                "the events are sent again"
            )

    def _count(self, info: object, now: float) -> None:
        online = replicas_online(info)
        if online is None:
            return
        # A lower number that was seen before says nothing more: this one counts for longer.
        higher = {most: now if until is None else until for most, until in self._followed.items() if most > online}
        counting = {most: until for most, until in higher.items() if now - until < self._grace}
        self._followed = {**counting, online: None}
