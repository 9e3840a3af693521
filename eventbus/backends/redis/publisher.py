"""The blocking client of Redis, through which the outbox's thread publishes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import redis

from eventbus.backends.pending import DeliveryStatus, read_delivery_status
from eventbus.backends.ports import Published, Request, Write
from eventbus.backends.redis.cluster.connection import ClusterConnection
from eventbus.backends.redis.connections.blocking import BlockingConnection, ConnectionReplaced
from eventbus.backends.redis.connections.errors import OUTDATED, ScriptUnknown, classify, describe_cluster
from eventbus.backends.redis.connections.locator import FixedLocator, Locator
from eventbus.backends.redis.connections.resp import Command
from eventbus.backends.redis.connections.voter import BlockingJoin, Voter
from eventbus.backends.redis.durability import Durability
from eventbus.backends.redis.format_check import FormatCheck
from eventbus.backends.redis.scripts.channel import fork, publish, read
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.backends.redis.scripts.operation_batches import (
    Run,
    lease_of,
    operation_of,
    record,
    runs,
    transitions_of,
)
from eventbus.backends.redis.scripts.operations import expire_lease_index
from eventbus.backends.redis.scripts.pending import index_channels
from eventbus.backends.redis.scripts.script import Call, Script, fresh_epoch
from eventbus.backends.shards import Shards
from eventbus.errors import EventBusError, TransportError, Unavailable
from eventbus.operations.state import TaskTransition
from eventbus.protocol.cursor import Position
from eventbus.settings import BusSettings

__all__ = ["RedisPublisher"]

log = logging.getLogger(__name__)

R = TypeVar("R")

# Channels whose last position a publisher remembers.
_POSITIONS: Final = 1_024


class RedisPublisher:
    """``TimedPublisher`` over one connection with time limits, or over one to each node of a cluster.
    It does not retry: its caller knows better when to.

    Args:
        settings: address, limits and the keys' prefix.
        voter: whether other processes may wait after a restart of Redis until this one has stated what it wrote
            last. Its owner then calls ``rest`` in time.

    Attributes:
        formats: chooses the format that gateways understand.
    """

    def __init__(self, settings: BusSettings, *, voter: bool = False) -> None:
        self._settings = settings
        self._keys = Keys.of(settings)
        self._voter = Voter(settings, self._keys, active=voter)
        self._loaded: set[str] = set()
        self._durability = Durability(settings, self._keys.durable) if settings.durable == "replicas" else None
        questions = [] if self._durability is None else self._durability.questions
        self._cluster: ClusterConnection | None = None
        locator: Locator | None = None
        if settings.redis.kind == "cluster":
            self._cluster = ClusterConnection(settings, voter=voter)
            locator = FixedLocator(settings.redis.nodes[0])  # the connection below stays closed
        self._connection = BlockingConnection(settings, locator=locator, questions=questions)
        self._joined = BlockingJoin(self._connection, self._voter)
        self._greeting: list[Any] = []
        self._positions: dict[str, Position] = {}  # the last ones, the oldest first
        self.formats = FormatCheck(settings)

    def publish(self, requests: Sequence[Request]) -> list[Published | Exception]:
        """See ``Publisher``."""
        format_ = self.format_to_write()
        epoch = fresh_epoch()
        grouped = runs(requests)
        calls: list[Call[list[Published]]] = []
        with_ack = {request.channel for request in requests if isinstance(request, Write) and request.needs_ack}
        leases: dict[str, int] = {}
        for run in grouped:
            transitions = transitions_of(run)
            calls.append(self._call(run, transitions, epoch, format_))
            lease = lease_of(transitions)
            if lease:
                member = f"{run[0].channel} {operation_of(run)}"
                leases[member] = min(lease, leases.get(member, lease))
        before: list[Command] = []
        if with_ack:
            before += index_channels(self._settings, self._keys, with_ack, self.formats.clock.now_ms())
        if leases:
            before += self._index_leases(leases)
        results: list[Published | Exception] = []
        for run, call, reply in zip(grouped, calls, self._run(calls, before, confirmed=True), strict=True):
            if isinstance(reply, Exception):
                results += [reply] * len(run)
            else:
                published = call.decode(reply)
                self._note_position(run[0].channel, published)
                results += published
        return results

    def _note_position(self, channel: str, published: Sequence[Published]) -> None:
        """Compare the channel's end with the one before. A lower one shows that data went back in time."""
        position = published[-1].position
        added = sum(offset > 0 for one in published for offset in one.offsets)
        known = self._positions.pop(channel, None)
        if known is not None and known.epoch == position.epoch and position.offset - added < known.offset:
            self._end_epoch(channel, known)
            return
        self._positions[channel] = position
        (self._cluster or self._voter).note_write(channel, position)
        if len(self._positions) > _POSITIONS:
            del self._positions[next(iter(self._positions))]

    def _end_epoch(self, channel: str, known: Position) -> None:
        """End an epoch whose data went back in time, so that pages get a gap."""
        log.warning("data of channel %s went back in time; its epoch %s ends", channel, known.epoch)
        try:
            self.run(fork(self._keys, channel, known.epoch))
        except EventBusError as error:
            self._positions[channel] = known  # the next batch tries again
            log.warning("cannot end epoch %s of channel %s: %s", known.epoch, channel, error)

    def format_to_write(self) -> int:
        """Return the newest format that all running gateways understand. From time to time it asks Redis.

        Raises:
            Unavailable, Refused: the server did not answer, or rejected the question.
        """
        if (self._cluster or self._connection).limit is not None:
            return self.formats.choice.format  # the caller has no time for another round trip
        try:
            ask = self._connection.round_trip if self._cluster is None else self._cluster.ask
            self.formats.run(time.monotonic(), ask)
        except (redis.RedisError, OSError) as error:
            raise classify(error) from error
        return self.formats.choice.format

    def publish_within(self, requests: Sequence[Request], seconds: float) -> list[Published | Exception]:
        """See ``TimedPublisher``."""
        connection = self._cluster or self._connection
        connection.limit = seconds
        try:
            return self.publish(requests)
        finally:
            connection.limit = None

    @property
    def shards(self) -> Shards | None:
        """See ``ShardedPublisher``."""
        return None if self._cluster is None else self._cluster.shards

    def position(self, channel: str) -> Position:
        """See ``Publisher``."""
        return self.run(read(self._keys, channel, None)).position

    def server_ms(self) -> int:
        """Return the server's milliseconds since 1970. A round trip."""
        return self.formats.clock.observe(*self.execute(("TIME",)))

    def delivery_status(self, channel: str, id_: str) -> tuple[DeliveryStatus, str]:
        """See ``Publisher``."""
        pending, _, _, _, dead, _, acked, _ = self._keys.pending(channel)
        when, entry, waits = self.execute(("ZSCORE", acked, id_), ("HGET", dead, id_), ("HEXISTS", pending, id_))
        return read_delivery_status(acked=when is not None, dead=entry, pending=bool(waits))

    def close(self) -> None:
        """See ``Publisher``."""
        self._joined.leave()
        (self._cluster or self._connection).close()

    def _call(self, run: Run, transitions: Sequence[TaskTransition], epoch: str, format_: int) -> Call[list[Published]]:
        ahead = self.formats.clock.ahead_ms
        if len(run) == 1 and isinstance(run[0], Write):
            return publish(self._settings, self._keys, run[0], epoch, format_, ahead).then(lambda one: [one])
        return record(self._settings, self._keys, run, transitions, epoch, format_, ahead)

    def _index_leases(self, leases: Mapping[str, int]) -> Sequence[Command]:
        """Put operations into the lease checker's index before their tasks run.

        Unlike the sweeper's index it needs no grace: a check comes after the end of the lease, and
        the entry stays until the operation ends.
        """
        index, now = self._keys.leases, self.formats.clock.now_ms()
        adding = (("ZADD", index, "LT", now + lease, member) for member, lease in leases.items())
        return [*adding, expire_lease_index(self._settings, self._keys)]

    def run(self, call: Call[R]) -> R:
        """Run one script.

        Args:
            call: the call.

        Returns:
            The decoded reply.

        Raises:
            Unavailable, Refused: the server did not answer, or rejected the call.
        """
        (result,) = self.run_all([call])
        return result

    def run_all(self, calls: Sequence[Call[R]], before: Sequence[Command] = ()) -> list[R]:
        """Run scripts in one round trip.

        Args:
            calls: the calls.
            before: commands to run first; their replies are dropped.

        Returns:
            The decoded replies in order.

        Raises:
            Unavailable, Refused: for the first call that failed.
        """
        replies = self._run(calls, before)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return [call.decode(reply) for call, reply in zip(calls, replies, strict=True)]

    def execute(self, *commands: Command) -> list[Any]:
        """Run commands in one round trip.

        Args:
            commands: the commands.

        Returns:
            The replies in order.

        Raises:
            Unavailable, Refused: for the first command that failed.
        """
        try:
            replies = (self._cluster or self._connection).round_trip(commands)
        except (redis.RedisError, OSError) as error:
            raise classify(error) from error
        for reply in replies:
            if isinstance(reply, TransportError):
                raise reply
            if isinstance(reply, redis.RedisError):
                raise classify(reply)
        return replies

    def _run(self, calls: Sequence[Call[Any]], before: Sequence[Command] = (), *, confirmed: bool = False) -> list[Any]:
        """Run scripts after the commands ``before``. Returns their replies; errors are our
        exceptions.
        """
        if self._cluster is not None:
            return self._cluster.run(calls, before, confirmed=confirmed)
        send = self._confirmed if confirmed else self._unconfirmed
        try:
            try:
                return self._run_joined(calls, before, send)
            except ConnectionReplaced:
                return self._run_joined(calls, before, send)
        except (redis.RedisError, OSError) as error:
            raise classify(error) from error

    def _run_joined(
        self,
        calls: Sequence[Call[Any]],
        before: Sequence[Command],
        round_trip: Callable[[Sequence[Command]], list[Any]],
    ) -> list[Any]:
        timeline = self._joined.timeline()
        commands = [call.command_on(timeline) for call in calls]
        self._load({call.script.sha: call.script for call in calls})
        replies = round_trip([*before, *commands])[len(before) :]
        results = [classify(reply) if isinstance(reply, redis.RedisError) else reply for reply in replies]
        missing = [i for i, result in enumerate(results) if isinstance(result, ScriptUnknown)]
        if missing:
            # The server lost all its scripts at the same time. So the calls that are sent again
            # stay in order.
            scripts = {calls[i].script for i in missing}
            self._connection.round_trip([("SCRIPT", "LOAD", script.source) for script in scripts])
            again = round_trip([commands[i] for i in missing])
            for i, reply in zip(missing, again, strict=True):
                results[i] = classify(reply) if isinstance(reply, redis.RedisError) else reply
        for result in results:
            if isinstance(result, Unavailable) and result.code == OUTDATED:
                self._joined.outdated(result)
        return results

    def _unconfirmed(self, commands: Sequence[Command]) -> list[Any]:
        """Make a round trip on the connection whose timeline is known."""
        return self._connection.round_trip(commands, greeting=self._joined.greeting)

    def _confirmed(self, commands: Sequence[Command]) -> list[Any]:
        """Make a round trip. In durable mode, raise Unavailable unless the replicas have what it wrote."""
        durability, connection = self._durability, self._connection
        if durability is None:
            return self._unconfirmed(commands)
        greeting = connection.connect()
        if greeting is not self._greeting and connection.endpoint is not None:
            self._greeting = greeting
            durability.connected(connection.endpoint, greeting, time.monotonic(), self.formats.clock.now_ms())
        limit = connection.limit
        after = durability.commands(limit, time.monotonic(), self.formats.clock.now_ms())
        patience = self._settings.durable_timeout if limit is None else 0.0
        replies = connection.round_trip([*commands, *after], patience, self._joined.greeting)
        named = connection.named and connection.greeting is self._greeting
        durability.check(replies[len(commands) :], named=named, now=time.monotonic())
        return replies[: len(commands)]

    def rest(self) -> None:
        """See ``RestingPublisher``."""
        if self._cluster is not None:
            self._cluster.rest()
            return
        try:
            self._joined.timeline(idle=True)
        except (redis.RedisError, OSError) as error:
            raise classify(error) from error

    @property
    def rest_in(self) -> float | None:
        """See ``RestingPublisher``."""
        return (self._cluster or self._voter).rest_in

    def _load(self, scripts: Mapping[str, Script]) -> None:
        """Load the scripts that this process has not loaded yet.

        If the server knew one script and not another, the calls that are sent again would overtake
        later ones.
        """
        missing = scripts.keys() - self._loaded
        if missing:
            loads: list[Command] = [("SCRIPT", "LOAD", scripts[sha].source) for sha in missing]
            first = not self._loaded
            *_, info = self._connection.round_trip([*loads, *([("CLUSTER", "INFO")] if first else [])])
            problem = describe_cluster(info) if first else None
            if problem is not None:
                log.error("cannot publish all events to Redis: %s", problem)
            self._loaded |= missing
