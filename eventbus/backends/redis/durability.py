"""Durable mode: an event counts as published when the replicas have it too. The decisions, without I/O.

WAIT is a command behind the scripts of a round trip, on their connection. Within a script or MULTI it says nothing
about what the script writes. Its count is right only for a connection that has written: a repeated event writes
nothing, so a small key is written before it.

All replicas must have the event, since any of them may be promoted. While one is promoted, the old master still
takes writes, and its other replicas still confirm them. So a replica that has left keeps counting for a while.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from eventbus.backends.redis.connections.resp import Command
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.errors import Unavailable
from eventbus.redis_url import Endpoint
from eventbus.settings import BusSettings

__all__ = ["Durability", "replicas_online"]

_MARK_MS: Final = 60_000  # life of the small key
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
        keys: names of the keys.
    """

    QUESTION: Final[Command] = ("INFO", "replication")
    """Asked when a connection opens, and after each WAIT."""

    def __init__(self, settings: BusSettings, keys: Keys) -> None:
        self._fixed = settings.durable_replicas
        self._grace = settings.durable_grace
        self._limit = settings.durable_timeout
        self._key = keys.durable
        self._server: Endpoint | None = None
        # Numbers of replicas that followed, the highest first -> when fewer were seen; None: the present number.
        self._followed: dict[int, float | None] = {}

    @property
    def required(self) -> int:
        """Number of replicas that must confirm."""
        return self._fixed or max(self._followed, default=1) or 1

    def connected(self, server: Endpoint, info: object, now: float) -> None:
        """Note a new connection. Another server begins a new count.

        Args:
            server: the server.
            info: its reply to ``QUESTION``.
            now: seconds of a monotonic clock.
        """
        if server != self._server:
            self._server, self._followed = server, {}
        self._count(info, now)

    def commands(self, seconds: float | None) -> list[Command]:
        """Return the commands that follow the scripts of a round trip.

        Args:
            seconds: the caller's time limit; None: that of the settings.
        """
        limit = self._limit if seconds is None else min(self._limit, seconds * 0.8)
        return [
            ("SET", self._key, "", "PX", _MARK_MS),
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
        _, confirmed, info = replies
        required = self.required
        self._count(info, now)
        if not named:
            raise Unavailable("another server has taken over; the events are sent again")
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
