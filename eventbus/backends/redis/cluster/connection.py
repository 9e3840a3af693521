"""Blocking connections to the nodes of a Redis Cluster, for the outbox's thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import redis

from eventbus.backends.redis.cluster.commands import RoundTrip, SlotGroup, group_by_slot, held_back
from eventbus.backends.redis.cluster.node import Node
from eventbus.backends.redis.cluster.shards import ClusterShards
from eventbus.backends.redis.cluster.topology import Topology, has_moved
from eventbus.backends.redis.connections.errors import OUTDATED, classify
from eventbus.backends.redis.connections.resp import Command
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.backends.redis.scripts.script import Call
from eventbus.backends.redis.timelines.blocking import BlockingTimelines
from eventbus.backends.redis.timelines.voter import ShardVoter
from eventbus.errors import EventBusError, TransportError, Unavailable
from eventbus.protocol.cursor import Position
from eventbus.redis_url import Endpoint
from eventbus.settings import BusSettings

__all__ = ["ClusterConnection"]

log = logging.getLogger(__name__)

_ROUNDS: Final = 5  # times that one round trip follows nodes that send it elsewhere
_REFRESH_S: Final = 0.1  # seconds between two reads of the topology, at least
_LEAVE_S: Final = 0.2  # seconds that the end may take


class ClusterConnection:
    """One connection to each node that is needed. One thread uses it at a time.

    A node that fails affects only its own slots.

    Args:
        settings: address and time limits.
        voter: whether other processes may wait until this one has stated what it wrote last.
        clock: seconds of a monotonic clock.

    Attributes:
        shards: which nodes answer.
    """

    def __init__(
        self, settings: BusSettings, *, voter: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._topology: Topology | None = None
        self._outdated = True
        self._refreshed = 0.0
        self._nodes: dict[Endpoint, Node] = {}
        self.shards = ClusterShards(lambda: self._topology, self._nodes)
        self._timelines = BlockingTimelines(ShardVoter(settings, Keys.of(settings), active=voter), self._ask)
        self.limit: float | None = None

    def run(self, calls: Sequence[Call[Any]], before: Sequence[Command] = (), *, confirmed: bool = False) -> list[Any]:
        """Run scripts after commands. The calls of one channel run in order.

        Args:
            calls: the calls.
            before: commands that run first. If one fails, the calls of its channel do not run.
            confirmed: in durable mode, calls fail unless the replicas of their node have what they wrote.

        Returns:
            One reply for each call; errors are our exceptions.

        Raises:
            Unavailable: no node could be asked.
        """
        held = held_back(before, self.round_trip(before)) if before else {}
        groups = group_by_slot([call.command for call in calls])
        replies: list[Any] = [None] * len(calls)
        for group in groups:
            error = held.get(group.slot) if group.slot is not None else None
            for place in group.places if error is not None else ():
                replies[place] = error
        free = [n for n, reply in enumerate(replies) if reply is None]
        found = self._round_trip(RoundTrip.of([calls[n] for n in free], confirmed=confirmed))
        for n, reply in zip(free, found, strict=True):
            replies[n] = reply
        return replies

    def round_trip(self, commands: Sequence[Command]) -> list[Any]:
        """Run commands, those of one slot in order.

        Args:
            commands: the commands.

        Returns:
            The replies in order; errors are our exceptions.

        Raises:
            Unavailable: no node could be asked.
        """
        return self._round_trip(RoundTrip(commands))

    def note_write(self, channel: str, position: Position) -> None:
        """Note a write that Redis has acknowledged.

        Args:
            channel: the channel.
            position: its end after the write.
        """
        if self._topology is not None:
            self._timelines.note_write(self._topology, channel, position)

    @property
    def rest_in(self) -> float | None:
        """See ``RestingPublisher``."""
        return self._timelines.rest_in

    def rest(self) -> None:
        """See ``RestingPublisher``."""
        self._timelines.rest(lambda node: self._admit(self._node(node)), self._current())

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Run commands as ``round_trip``. ``PUBSUB NUMSUB`` sees the subscribers of one node, so all masters are asked.

        Args:
            commands: the commands; each ``PUBSUB NUMSUB`` names one pub/sub channel.

        Returns:
            The replies in order; errors are our exceptions.
        """
        return [
            self._count_subscribers(command) if command[:2] == ("PUBSUB", "NUMSUB") else self.round_trip([command])[0]
            for command in commands
        ]

    def _count_subscribers(self, command: Command) -> Any:
        groups = {self._node(node): [SlotGroup(None, [0], [command])] for node in self._current().masters}
        replies = [
            found if isinstance(found, EventBusError) else self._translate(found[-1])
            for found in self._exchange(groups, RoundTrip([command]))
        ]
        counts = [reply for reply in replies if not isinstance(reply, EventBusError)]
        return [counts[0][0], sum(int(count) for _, count in counts)] if counts else replies[0]

    def close(self) -> None:
        """Close all connections. End the evidence of this process in order, if that takes little time."""
        self.limit = _LEAVE_S
        if self._topology is not None:
            self._timelines.leave(self._topology)
        self.limit = None
        for node in self._nodes.values():
            node.connection.close()

    # --- inside ------------------------------------------------------------------------------------------------

    def _round_trip(self, trip: RoundTrip) -> list[Any]:
        trip.replies = [None] * len(trip.commands)
        groups = group_by_slot(trip.commands)
        for _ in range(_ROUNDS):
            if not groups:
                break
            groups = self._one_round(groups, trip)
        for group in groups:
            trip.answer(group, [Unavailable("the cluster moves this slot now; the call is tried again")])
        return trip.replies

    def _one_round(self, groups: list[SlotGroup], trip: RoundTrip) -> list[SlotGroup]:
        """Send each group to its node. Note the replies; return the groups to send again."""
        topology = self._current()
        by_node: dict[Node, list[SlotGroup]] = {}
        for group in groups:
            owner = group.asked or (topology.owner(group.slot) if group.slot is not None else topology.masters[0])
            if owner is None:
                self._outdated = True
                trip.answer(group, [Unavailable(f"no node of the cluster serves slot {group.slot}")])
            else:
                by_node.setdefault(self._node(owner), []).append(group)
        again: list[SlotGroup] = []
        for (node, of_node), found in zip(by_node.items(), self._exchange(by_node, trip), strict=True):
            if isinstance(found, EventBusError):
                for group in of_node:
                    trip.answer(group, [found])
            else:
                again += self._read(node, of_node, found, trip)
        return again

    def _exchange(
        self, by_node: Mapping[Node, Sequence[SlotGroup]], trip: RoundTrip
    ) -> list[list[Any] | EventBusError]:
        """Send to all nodes, then read from all."""
        try:
            # A node is joined before the first one gets commands: that asks several nodes.
            ready = [(node, groups, self._prepare(node, groups, trip)) for node, groups in by_node.items()]
            sent = [
                (node, greeting if isinstance(greeting, EventBusError) else self._send(node, groups, trip, greeting))
                for node, groups, greeting in ready
            ]
            return [self._receive(node, state, trip) if isinstance(state, int) else state for node, state in sent]
        except BaseException:
            # Such as Celery's time limit. Unread replies may still arrive.
            for node in by_node:
                node.connection.close()
            raise

    def _prepare(self, node: Node, groups: Sequence[SlotGroup], trip: RoundTrip) -> list[Any] | EventBusError | None:
        """Join the node, if a command needs it. Return the greeting of the connection to use; None: any connection."""
        if not trip.uses_timelines(groups):
            return None
        greeting = self._admit(node)
        if not isinstance(greeting, EventBusError):
            for group in groups:
                self._timelines.stamp(node.endpoint, group, trip.calls)
        return greeting

    def _admit(self, node: Node) -> list[Any] | EventBusError:
        if node.failing:
            return self._silent(node)
        node.connection.limit = self.limit
        found = self._timelines.admit(node.endpoint, node.connection, self._topology or Topology())
        node.waiting = isinstance(found, EventBusError)
        if isinstance(found, EventBusError):
            return self._failed(node, found) if node.connection.endpoint is None else self._translate(found)
        return found

    def _ask(self, endpoint: Endpoint | None, commands: Sequence[Command]) -> list[Any]:
        """Run commands of the timelines: at one node, or where their keys are."""
        if endpoint is None:
            return self.round_trip(commands)
        node = self._node(endpoint)
        if node.failing:
            raise self._silent(node)
        try:
            return [self._translate(reply) for reply in node.connection.round_trip(commands)]
        except (redis.RedisError, OSError) as error:
            raise self._failed(node, error) from error

    def _send(
        self, node: Node, groups: Sequence[SlotGroup], trip: RoundTrip, greeting: list[Any] | None
    ) -> int | EventBusError:
        """Return the number of replies to await."""
        if node.failing:
            return self._silent(node)
        try:
            return node.send(groups, trip, self._topology or Topology(), greeting, self.limit)
        except (redis.RedisError, OSError, EventBusError) as error:
            return self._failed(node, error)

    def _receive(self, node: Node, number: int, trip: RoundTrip) -> list[Any] | EventBusError:
        try:
            return node.receive(number, trip, self.limit)
        except (redis.RedisError, OSError, EventBusError) as error:
            return self._failed(node, error)

    def _silent(self, node: Node) -> Unavailable:
        self._outdated = True  # another node may have its slots now
        node.ping()
        return Unavailable(f"node {node.endpoint} of the cluster does not answer")

    def _failed(self, node: Node, error: redis.RedisError | OSError | EventBusError) -> EventBusError:
        self._outdated = True
        if self.limit is None:  # a shorter limit may be too short for a busy node
            node.failing = True
            node.ping()
        node.loaded.clear()
        return error if isinstance(error, EventBusError) else classify(error)

    def _read(self, node: Node, groups: Sequence[SlotGroup], found: list[Any], trip: RoundTrip) -> list[SlotGroup]:
        behind = node.confirmation.sent if trip.confirmed else 0
        end = len(found) - behind
        position = end - sum(len(group.wire) for group in groups)  # the scripts' replies come first
        unconfirmed = node.confirmation.check(found[end:]) if behind else None
        self._outdated = self._outdated or unconfirmed is not None  # the key's slot may have moved
        again: list[SlotGroup] = []
        for group in groups:
            size = len(group.wire)
            of_group = group.read(found[position : position + size])
            position += size
            elsewhere = group.redirection(of_group, node.endpoint)
            if elsewhere is not None:
                if not elsewhere.once:
                    self._current().note(elsewhere)
                    self._outdated = True
                group.asked = elsewhere.node if elsewhere.once else None
                again.append(group)
                continue
            answers = [self._translate(reply) for reply in of_group]
            trip.answer(group, answers if unconfirmed is None else [unconfirmed])
            for answer in answers:
                if isinstance(answer, Unavailable) and answer.code == OUTDATED:
                    self._timelines.refused(group, answer)
            lost = group.without_script(of_group)
            if lost is not None:
                # The node lost all its scripts at the same time, so what is sent again stays in order.
                node.loaded.clear()
                again.append(lost)
        return again

    def _translate(self, reply: Any) -> Any:
        error = classify(reply) if isinstance(reply, redis.RedisError) else reply
        if isinstance(error, TransportError) and error.code and has_moved(error.code):
            self._outdated = True
        return error

    def _node(self, endpoint: Endpoint) -> Node:
        node = self._nodes.get(endpoint)
        if node is None:
            node = self._nodes[endpoint] = Node(self._settings, endpoint)
        return node

    def _current(self) -> Topology:
        """Return the topology. If it may have changed, read it again, unless the caller has no time for it."""
        known = self._topology
        due = self._outdated and self._clock() - self._refreshed >= _REFRESH_S
        if known is not None and (not due or self.limit is not None):
            return known
        if self.limit is not None:
            raise Unavailable("there is no connection")
        self._refreshed = self._clock()
        found = self._ask_topology()
        if found is None:
            if known is None:
                raise Unavailable("no node of the cluster answers")
            return known
        self._topology, self._outdated = found, False
        for endpoint in self._nodes.keys() - set(found.masters):
            self._nodes.pop(endpoint).connection.close()
        return found

    def _ask_topology(self) -> Topology | None:
        """Ask one node after the other; first those that answered last time."""
        known = self._topology.masters if self._topology is not None else []
        candidates = dict.fromkeys((*known, *self._settings.redis.nodes))
        for endpoint in sorted(candidates, key=self.shards.is_failing):
            node = self._node(endpoint)
            node.connection.limit = None
            try:
                (reply,) = node.connection.round_trip([("CLUSTER", "SLOTS")])
                if isinstance(reply, redis.RedisError):
                    raise classify(reply)
            except (redis.RedisError, OSError, TransportError) as error:
                self._failed(node, error)
                log.warning("cannot ask node %s for the cluster's slots: %s", endpoint, error)
                continue
            node.failing = False
            topology = Topology.read(reply, endpoint)
            if topology.masters:
                return topology
        return None
