"""The blocking edge to Redis: what the outbox's thread sends through."""

from __future__ import annotations

# redis-py does so when it connects first, to read its own version; but that is in a thread: see scripts.py.
import email.parser  # noqa: F401
import time
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from eventbus.cursor import Position
from eventbus.errors import Refused, Unavailable
from eventbus.letters import Standing, read_standing
from eventbus.redis.keys import Keys
from eventbus.redis.operationcalls import advance, index_lives
from eventbus.redis.resp import Command, pack
from eventbus.redis.scripts import Call, publish, read
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
        self._pool = redis.ConnectionPool.from_url(
            settings.redis_url,
            protocol=2,
            socket_connect_timeout=settings.connect_timeout,
            socket_timeout=settings.socket_timeout,
            retry=Retry(NoBackoff(), 0),
            socket_keepalive=True,
            max_connections=2,
        )

    def publish(self, requests: Sequence[Request]) -> list[Published | Exception]:
        """See ``Publisher``."""
        calls = [self._call(request) for request in requests]
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
        self._pool.disconnect()

    def _call(self, request: Request) -> Call[Published]:
        if isinstance(request, Write):
            return publish(self._settings, self._keys, request)
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
            replies = self._round_trip(commands)
        except (redis.RedisError, OSError) as error:
            raise classify(error) from error
        for reply in replies:
            if isinstance(reply, redis.RedisError):
                raise classify(reply)
        return replies

    def _run(self, calls: Sequence[Call[Any]], before: Sequence[Command] = ()) -> list[Any]:
        """Answers in order, errors of the server among them as our own exceptions. ``before`` is run first."""
        try:
            replies = self._round_trip([*before, *(call.command for call in calls)])[len(before) :]
            missing = [i for i, reply in enumerate(replies) if isinstance(reply, redis.exceptions.NoScriptError)]
            if missing:
                # The server lost its scripts, all of them at once: so whatever is sent again is still in order.
                self._round_trip([("SCRIPT", "LOAD", script.source) for script in {calls[i].script for i in missing}])
                for i, reply in zip(missing, self._round_trip([calls[i].command for i in missing]), strict=True):
                    replies[i] = reply
        except (redis.RedisError, OSError) as error:
            raise classify(error) from error
        return [classify(reply) if isinstance(reply, redis.RedisError) else reply for reply in replies]

    def _round_trip(self, commands: Sequence[Command]) -> list[Any]:
        """Write everything, then read as many answers.

        A pipeline of redis-py does the same at twice the CPU time per command, most of it in packing.
        """
        connection: Any = self._pool.get_connection()
        try:
            connection.send_packed_command([b"".join(map(pack, commands))])
            return [_answer(connection) for _ in commands]
        except BaseException:
            # Answers may be on their way that nobody will read: the connection must not serve anybody else.
            connection.disconnect()
            raise
        finally:
            self._pool.release(connection)


def _answer(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error
