"""The blocking edge to Redis: what the outbox's thread sends through."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import redis

from eventbus.cursor import Position
from eventbus.errors import Refused, Unavailable
from eventbus.letters import Standing, read_standing
from eventbus.redis.keys import Keys
from eventbus.redis.line import Line
from eventbus.redis.operationcalls import advance, index_lives
from eventbus.redis.resp import Command
from eventbus.redis.scripts import Call, Script, fresh_epoch, publish, read
from eventbus.settings import BusSettings
from eventbus.transport import Advance, Published, Request, Write

__all__ = ["INDEX_GRACE_MS", "RedisPublisher", "classify"]

R = TypeVar("R")

# Longer than any publication is on its way: see RedisPublisher._index.
INDEX_GRACE_MS = 10_000

# Answers that say "not now": the same call will work when the server has recovered. redis-py makes classes of the codes
# that it knows, and cuts the code off the text; the others keep it.
_PASSING_CLASSES = (
    OSError,
    redis.ConnectionError,
    redis.TimeoutError,
    redis.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.MasterDownError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.TryAgainError,
)
_PASSING_CODES = (
    "OOM",
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "BUSY",
    "NOREPLICAS",
    "MISCONF",
)


def classify(error: redis.RedisError | OSError) -> Unavailable | Refused:
    """Our word for a client library's error: worth another try, or not."""
    passing = isinstance(error, _PASSING_CLASSES) or str(error).startswith(_PASSING_CODES)
    return Unavailable(f"Redis is not available: {error}") if passing else Refused(f"Redis refused: {error}")


class RedisPublisher:
    """One connection, with a time limit on everything and no retries of its own: its caller knows better when."""

    def __init__(self, settings: BusSettings) -> None:
        self._settings = settings
        self._keys = Keys(settings.key_prefix)
        self._loaded: set[str] = set()
        self._line = Line(settings)

    def publish(self, requests: Sequence[Request]) -> list[Published | Exception]:
        """See ``Publisher``."""
        epoch = fresh_epoch()
        calls = [self._call(request, epoch) for request in requests]
        owing = {request.channel for request in requests if isinstance(request, Write) and request.owing}
        leased = [request for request in requests if isinstance(request, Advance) and request.lease]
        before = (*(self._index(owing) if owing else ()), *(self._leased(leased) if leased else ()))
        replies = self._run(calls, before)
        return [
            reply if isinstance(reply, Exception) else call.decode(reply)
            for call, reply in zip(calls, replies, strict=True)
        ]

    def position(self, channel: str) -> Position:
        """See ``Publisher``."""
        return self.run(read(self._keys, channel, None)).position

    def standing(self, channel: str, id_: str) -> tuple[Standing, str]:
        """See ``Publisher``."""
        pending, *_, dead, _, acked = self._keys.letters(channel)
        when, entry, waits = self.execute(("ZSCORE", acked, id_), ("HGET", dead, id_), ("HEXISTS", pending, id_))
        return read_standing(acked=when is not None, dead=entry, pending=bool(waits))

    def close(self) -> None:
        """See ``Publisher``."""
        self._line.close()

    def _call(self, request: Request, epoch: str) -> Call[Published]:
        if isinstance(request, Write):
            return publish(self._settings, self._keys, request, epoch)
        return advance(self._settings, self._keys, request)

    def _index(self, channels: Iterable[str]) -> Sequence[Command]:
        """Note the channels whose lists will have something, before they have: so that a sweep will find it.

        With a moment's grace: a sweep between this and the publication would find nothing, and forget the channel.
        """
        index, soon = self._keys.index, time.time_ns() // 1_000_000 + INDEX_GRACE_MS
        life = int(self._settings.dead_ttl.total_seconds() * 1.125)
        return [*(("ZADD", index, "LT", soon, channel) for channel in channels), ("EXPIRE", index, life)]

    def _leased(self, requests: Sequence[Advance]) -> Sequence[Command]:
        """Note the operations of which something will run, before it does, for the same reason.

        Without a grace, since it is not to be looked at before the lease is over, and is kept until the operation ends.
        """
        index, now = self._keys.leases, time.time_ns() // 1_000_000
        noted = (
            ("ZADD", index, "LT", now + request.lease, f"{request.channel} {request.operation}") for request in requests
        )
        return [*noted, index_lives(self._settings, self._keys)]

    def run(self, call: Call[R]) -> R:
        """Run one script. Raises Unavailable or Refused."""
        (reply,) = self._run([call])
        if isinstance(reply, Exception):
            raise reply
        return call.decode(reply)

    def execute(self, *commands: Command) -> list[Any]:
        """Run commands in one round trip. Raises Unavailable or Refused for the first that failed."""
        try:
            replies = self._line.round_trip(commands)
        except (redis.RedisError, OSError) as error:
            raise classify(error) from error
        for reply in replies:
            if isinstance(reply, redis.RedisError):
                raise classify(reply)
        return replies

    def _run(self, calls: Sequence[Call[Any]], before: Sequence[Command] = ()) -> list[Any]:
        """Answers in order, errors of the server among them as our own exceptions. ``before`` is run first."""
        try:
            self._load({call.script.sha: call.script for call in calls})
            replies = self._line.round_trip([*before, *(call.command for call in calls)])[len(before) :]
            missing = [i for i, reply in enumerate(replies) if _is_error(reply, "NOSCRIPT")]
            if missing:
                # The server lost its scripts, all of them at once: so whatever is sent again is still in order.
                sources = {calls[i].script.source for i in missing}
                self._line.round_trip([("SCRIPT", "LOAD", source) for source in sources])
                for i, reply in zip(missing, self._line.round_trip([calls[i].command for i in missing]), strict=True):
                    replies[i] = reply
        except (redis.RedisError, OSError) as error:
            raise classify(error) from error
        return [classify(reply) if isinstance(reply, redis.RedisError) else reply for reply in replies]

    def _load(self, scripts: Mapping[str, Script]) -> None:
        """Give the server what this process has not sent it yet: with one script known and another not, what is sent
        again would come after what was sent later.
        """
        unsent = scripts.keys() - self._loaded
        if unsent:
            self._line.round_trip([("SCRIPT", "LOAD", scripts[sha].source) for sha in unsent])
            self._loaded |= unsent


def _is_error(reply: object, code: str) -> bool:
    return isinstance(reply, redis.ResponseError) and str(reply).startswith(code)
