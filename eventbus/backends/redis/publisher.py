"""The blocking edge to Redis: what the outbox's thread sends through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import redis

from eventbus.backends.pending import DeliveryStatus, read_delivery_status
from eventbus.backends.ports import Published, Request, Write
from eventbus.backends.redis.connections.blocking import BlockingConnection
from eventbus.backends.redis.connections.resp import Command
from eventbus.backends.redis.scripts.channel import publish, read
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.backends.redis.scripts.operation_batches import Run, lease_of, operation_of, runs, tell, transitions_of
from eventbus.backends.redis.scripts.operations import index_lives
from eventbus.backends.redis.scripts.pending import noted
from eventbus.backends.redis.scripts.script import Call, Script, fresh_epoch
from eventbus.clock import now_ms
from eventbus.errors import Refused, Unavailable
from eventbus.operations.state import TaskTransition
from eventbus.protocol.cursor import Position
from eventbus.settings import BusSettings

__all__ = ["RedisPublisher", "classify"]

R = TypeVar("R")

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
        self._line = BlockingConnection(settings)

    def publish(self, requests: Sequence[Request]) -> list[Published | Exception]:
        """See ``Publisher``."""
        epoch = fresh_epoch()
        told = runs(requests)
        calls: list[Call[list[Published]]] = []
        needs_ack = {request.channel for request in requests if isinstance(request, Write) and request.needs_ack}
        leased: dict[str, int] = {}
        for run in told:
            transitions = transitions_of(run)
            calls.append(self._call(run, transitions, epoch))
            lease = lease_of(transitions)
            if lease:
                member = f"{run[0].channel} {operation_of(run)}"
                leased[member] = min(lease, leased.get(member, lease))
        before: list[Command] = []
        if needs_ack:
            before += noted(self._settings, self._keys, needs_ack, now_ms())
        if leased:
            before += self._leased(leased)
        answers: list[Published | Exception] = []
        for run, call, reply in zip(told, calls, self._run(calls, before), strict=True):
            answers += [reply] * len(run) if isinstance(reply, Exception) else call.decode(reply)
        return answers

    def publish_within(self, requests: Sequence[Request], seconds: float) -> list[Published | Exception]:
        """See ``TimedPublisher``."""
        self._line.limit = seconds
        try:
            return self.publish(requests)
        finally:
            self._line.limit = None

    def position(self, channel: str) -> Position:
        """See ``Publisher``."""
        return self.run(read(self._keys, channel, None)).position

    def delivery_status(self, channel: str, id_: str) -> tuple[DeliveryStatus, str]:
        """See ``Publisher``."""
        pending, *_, dead, _, acked = self._keys.pending(channel)
        when, entry, waits = self.execute(("ZSCORE", acked, id_), ("HGET", dead, id_), ("HEXISTS", pending, id_))
        return read_delivery_status(acked=when is not None, dead=entry, pending=bool(waits))

    def close(self) -> None:
        """See ``Publisher``."""
        self._line.close()

    def _call(self, run: Run, transitions: Sequence[TaskTransition], epoch: str) -> Call[list[Published]]:
        if len(run) == 1 and isinstance(run[0], Write):
            return publish(self._settings, self._keys, run[0], epoch).then(lambda published: [published])
        return tell(self._settings, self._keys, run, transitions, epoch)

    def _leased(self, leases: Mapping[str, int]) -> Sequence[Command]:
        """Note the operations of which something will run, before it does, for the same reason.

        Without a grace, since it is not to be looked at before the lease is over, and is kept until the operation ends.
        """
        index, now = self._keys.leases, now_ms()
        noted = (("ZADD", index, "LT", now + lease, member) for member, lease in leases.items())
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
                self._line.round_trip(
                    [("SCRIPT", "LOAD", script.source) for script in {calls[i].script for i in missing}]
                )
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
