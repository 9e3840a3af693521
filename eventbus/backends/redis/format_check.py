"""Which format a process writes: it asks Redis for the gateways that run, from time to time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from eventbus.backends.redis.connections.resp import Command
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.clock import ServerClock
from eventbus.errors import NotPermitted, Unavailable
from eventbus.protocol.formats import FORMAT, FormatChoice, choose_format
from eventbus.settings import BusSettings

__all__ = ["FormatAnnouncement", "FormatCheck"]

log = logging.getLogger(__name__)


class FormatAnnouncement:
    """Announces the format that an instance understands, as long as it probes. Workers write no newer one.

    Args:
        settings: how long an announcement holds, and the keys' prefix.
        clock: the clock of Redis.
    """

    def __init__(self, settings: BusSettings, clock: ServerClock) -> None:
        self._clock = clock
        self._keys = Keys.of(settings)
        self._life_ms = int(settings.format_ttl * 1000)
        self._member: str | None = None

    def commands(self, instance: str) -> Sequence[Command]:
        """Return the commands that announce it, all of one key.

        Args:
            instance: the instance's name.
        """
        name, now = self._keys.gateways, self._clock.now_ms()
        self._member = f"{FORMAT} {instance}"
        return (
            ("ZREMRANGEBYSCORE", name, "-inf", now),
            # An earlier version may have had the same name.
            ("ZREM", name, *(f"{older} {instance}" for older in range(1, FORMAT))),
            ("ZADD", name, now + self._life_ms, self._member),
            ("PEXPIRE", name, self._life_ms),
        )

    @property
    def withdrawal(self) -> Sequence[Command]:
        """The commands after which workers need not consider the instance any more."""
        return () if self._member is None else (("ZREM", self._keys.gateways, self._member),)


class FormatCheck:
    """The choice of a format for one process, and the clock of Redis.

    Each gateway listens for its canary, so the number of those that announce no format is known as well.

    It logs a problem once, and its end.

    Args:
        settings: how often to ask, and the keys' prefix.
        own: the newest format that this process can write.
        unannounced: gateways without an announcement, as of the last question; None: there was no question. A gateway
            begins with 0, since it listens before it has announced itself.

    Attributes:
        own: as given.
        choice: the format to write now.
        clock: the clock of Redis, as of the last question.
    """

    def __init__(self, settings: BusSettings, own: int = FORMAT, unannounced: int | None = None) -> None:
        self._keys = Keys.of(settings)
        self._interval = settings.format_interval
        self._next = float("-inf")
        self._unannounced = unannounced
        self.own = own
        self.clock = ServerClock()
        self.choice = FormatChoice(own)

    def run(self, now: float, round_trip: Callable[[Sequence[Command]], Sequence[Any]]) -> None:
        """Ask Redis, if it is time, and choose.

        Args:
            now: monotonic time.
            round_trip: runs commands; an error that is an answer is in its result.
        """
        commands = self.questions(now)
        if commands:
            self.answered(now, round_trip(commands))

    def questions(self, now: float) -> list[Command]:
        """Return the commands whose replies ``answered`` needs; none if it is not time.

        Args:
            now: monotonic time.
        """
        if now < self._next:
            return []
        return [
            ("TIME",),
            ("ZRANGEBYSCORE", self._keys.gateways, "-inf", "+inf", "WITHSCORES"),
            ("PUBSUB", "NUMSUB", self._keys.canary),
        ]

    def answered(self, now: float, replies: Sequence[Any]) -> None:
        """Choose.

        Args:
            now: monotonic time.
            replies: the replies to ``questions``; an error that is an answer is among them.
        """
        time, found, listening = replies
        self._next = now + self._interval
        if any(isinstance(reply, Unavailable) and not isinstance(reply, NotPermitted) for reply in replies):
            return  # a node of a cluster is down; the others must not wait for it
        if not isinstance(time, Exception):
            self.clock.observe(time)
        # A user of Redis may lack the right to one of the commands. Then it is unknown who runs.
        announced = [] if isinstance(found, Exception) else _announced(found, self.clock.now_ms())
        instances = len({instance for instance, _ in announced})
        more = 0 if isinstance(listening, Exception) else max(0, int(listening[1]) - instances)
        # A gateway that has just started listens before it announces. A lost connection may listen for a while.
        unannounced, self._unannounced = more if self._unannounced is None else min(more, self._unannounced), more
        before, self.choice = self.choice, choose_format(self.own, announced, unannounced)
        if self.choice.problem and self.choice != before:
            log.warning("cannot write the newest format to Redis: %s", self.choice.problem)
        elif before.problem and not self.choice.problem:
            log.info("writing format %d to Redis: all gateways understand it", self.choice.format)


def _announced(found: Sequence[bytes], now_ms: int) -> list[tuple[str, int]]:
    """Read the announcements that hold."""
    return [_read(member) for member, until in zip(found[::2], found[1::2], strict=True) if float(until) >= now_ms]


def _read(member: bytes) -> tuple[str, int]:
    format_, _, instance = member.decode("utf-8", "replace").partition(" ")
    return instance, int(format_) if format_.isdigit() else FORMAT
