"""Blocking connections to the nodes of a Redis Cluster, for the outbox's thread."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import redis

from eventbus.backends.redis.cluster.commands import SlotGroup, group_by_slot, held_back
from eventbus.backends.redis.cluster.topology import Topology, has_moved, slot_of
from eventbus.backends.redis.connections.blocking import BlockingConnection
from eventbus.backends.redis.connections.errors import classify
from eventbus.backends.redis.connections.locator import FixedLocator
from eventbus.backends.redis.connections.resp import Command
from eventbus.backends.redis.scripts.script import Call, Script
from eventbus.errors import EventBusError, TransportError, Unavailable
from eventbus.protocol.timeline import UNKNOWN
from eventbus.redis_url import Endpoint
from eventbus.settings import BusSettings

__all__ = ["ClusterConnection"]

log = logging.getLogger(__name__)

_ROUNDS: Final = 5  # times that one round trip follows nodes that send it elsewhere
_REFRESH_S: Final = 0.1  # seconds between two reads of the topology, at least


class _Node:
    """A connection to one node, and the scripts that the node has.

    Attributes:
        failing: whether it did not answer last time. Calls for it then fail immediately, until it has answered a ping.
    """

    def __init__(self, settings: BusSettings, endpoint: Endpoint) -> None:
        self._settings = settings
        self.endpoint = endpoint
        self.connection = BlockingConnection(settings, locator=FixedLocator(endpoint))
        self.loaded: set[str] = set()
        self.failing = False
        self._pinging: threading.Thread | None = None

    def ping(self) -> None:
        """Ask in another thread whether a failing node answers again: one that is silent must not delay the others."""
        if self._pinging is None or not self._pinging.is_alive():
            self._pinging = threading.Thread(target=self._ping, name="eventbus-cluster-ping", daemon=True)
            self._pinging.start()

    def _ping(self) -> None:
        connection = BlockingConnection(self._settings, locator=FixedLocator(self.endpoint))
        with contextlib.closing(connection), contextlib.suppress(redis.RedisError, OSError, EventBusError):
            (reply,) = connection.round_trip([("PING",)])
            self.failing = isinstance(reply, redis.RedisError) and isinstance(classify(reply), Unavailable)


class ClusterConnection:
    """One connection to each node that is needed. One thread uses it at a time.

    A node that fails affects only its own slots.

    Args:
        settings: address and time limits.
        clock: seconds of a monotonic clock.
    """

    def __init__(self, settings: BusSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._topology: Topology | None = None
        self._outdated = True
        self._refreshed = 0.0
        self._nodes: dict[Endpoint, _Node] = {}
        self._routing: tuple[object, ...] = ()
        self._routing_version = 0
        self.limit: float | None = None

    @property
    def reaches_some(self) -> bool:
        """See ``Shards``."""
        return self._topology is not None and not all(map(self._is_failing, self._topology.masters))

    @property
    def routing_version(self) -> int:
        """See ``Shards``."""
        topology = self._topology
        failing = frozenset(endpoint for endpoint, node in self._nodes.items() if node.failing)
        routing = (failing, None if topology is None else topology.owners)
        if routing != self._routing:
            self._routing, self._routing_version = routing, self._routing_version + 1
        return self._routing_version

    def reaches(self, channel: str) -> bool:
        """See ``Shards``."""
        topology = self._topology
        owner = None if topology is None else topology.owner(slot_of(f"{{{channel}}}"))
        return topology is None or (owner is not None and not self._is_failing(owner))

    def _is_failing(self, endpoint: Endpoint) -> bool:
        node = self._nodes.get(endpoint)
        return node is not None and node.failing

    def run(self, calls: Sequence[Call[Any]], before: Sequence[Command] = ()) -> list[Any]:
        """Run scripts after commands. The calls of one channel run in order.

        Args:
            calls: the calls.
            before: commands that run first. If one fails, the calls of its channel do not run.

        Returns:
            One reply for each call; errors are our exceptions.

        Raises:
            Unavailable: no node could be asked.
        """
        held = held_back(before, self._round_trip(before, {})) if before else {}
        # Each node has a timeline; none is known here.
        commands = [call.command_on(UNKNOWN) if call.script.has_timeline else call.command for call in calls]
        groups = group_by_slot(commands)
        replies: list[Any] = [None] * len(calls)
        for group in groups:
            error = held.get(group.slot) if group.slot is not None else None
            for place in group.places if error is not None else ():
                replies[place] = error
        free = [n for n, reply in enumerate(replies) if reply is None]
        scripts = {call.script.sha: call.script for call in calls}
        found = self._round_trip([commands[n] for n in free], scripts)
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
        return self._round_trip(commands, {})

    def close(self) -> None:
        """Close all connections."""
        for node in self._nodes.values():
            node.connection.close()

    # --- inside ------------------------------------------------------------------------------------------------

    def _round_trip(self, commands: Sequence[Command], scripts: Mapping[str, Script]) -> list[Any]:
        replies: list[Any] = [None] * len(commands)
        groups = group_by_slot(commands)
        for _ in range(_ROUNDS):
            if not groups:
                break
            groups = self._one_round(groups, scripts, replies)
        for group in groups:
            for place in group.places:
                replies[place] = Unavailable("the cluster moves this slot now; the call is tried again")
        return replies

    def _one_round(self, groups: list[SlotGroup], scripts: Mapping[str, Script], replies: list[Any]) -> list[SlotGroup]:
        """Send each group to its node. Note the replies; return the groups to send again."""
        topology = self._current()
        by_node: dict[_Node, list[SlotGroup]] = {}
        for group in groups:
            owner = group.asked or (topology.owner(group.slot) if group.slot is not None else topology.masters[0])
            if owner is None:
                self._outdated = True
                _answer(group, [Unavailable(f"no node of the cluster serves slot {group.slot}")], replies)
            else:
                by_node.setdefault(self._node(owner), []).append(group)
        again: list[SlotGroup] = []
        for (node, of_node), found in zip(by_node.items(), self._exchange(by_node, scripts), strict=True):
            if isinstance(found, EventBusError):
                for group in of_node:
                    _answer(group, [found], replies)
            else:
                again += self._read(node, of_node, found, replies)
        return again

    def _exchange(
        self, by_node: Mapping[_Node, Sequence[SlotGroup]], scripts: Mapping[str, Script]
    ) -> list[list[Any] | EventBusError]:
        """Send to all nodes, then read from all."""
        try:
            sent = [(node, self._send(node, groups, scripts)) for node, groups in by_node.items()]
            return [self._receive(node, state) if isinstance(state, int) else state for node, state in sent]
        except BaseException:
            # Such as Celery's time limit. Unread replies may still arrive.
            for node in by_node:
                node.connection.close()
            raise

    def _send(self, node: _Node, groups: Sequence[SlotGroup], scripts: Mapping[str, Script]) -> int | EventBusError:
        """Return the number of replies to await."""
        if node.failing:
            self._outdated = True  # another node may have its slots now
            node.ping()
            return Unavailable(f"node {node.endpoint} of the cluster does not answer")
        needed = {str(command[1]) for group in groups for command in group.commands if command[0] == "EVALSHA"}
        missing = needed - node.loaded
        wire: list[Command] = [("SCRIPT", "LOAD", scripts[sha].source) for sha in sorted(missing)]
        for group in groups:
            wire += group.wire
        node.connection.limit = self.limit
        try:
            node.connection.send(wire)
        except (redis.RedisError, OSError, EventBusError) as error:
            return self._failed(node, error)
        node.loaded |= missing
        return len(wire)

    def _receive(self, node: _Node, number: int) -> list[Any] | EventBusError:
        try:
            return node.connection.receive(number)
        except (redis.RedisError, OSError, EventBusError) as error:
            return self._failed(node, error)

    def _failed(self, node: _Node, error: redis.RedisError | OSError | EventBusError) -> EventBusError:
        self._outdated = True
        if self.limit is None:  # a shorter limit may be too short for a busy node
            node.failing = True
            node.ping()
        node.loaded.clear()
        return error if isinstance(error, EventBusError) else classify(error)

    def _read(self, node: _Node, groups: Sequence[SlotGroup], found: list[Any], replies: list[Any]) -> list[SlotGroup]:
        position = len(found) - sum(len(group.wire) for group in groups)  # the scripts' replies come first
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
            _answer(group, [self._translate(reply) for reply in of_group], replies)
            lost = group.without_script(of_group)
            if lost is not None:
                # The node lost all its scripts at the same time, so what is sent again stays in order.
                node.loaded.clear()
                again.append(lost)
        return again

    def _translate(self, reply: Any) -> Any:
        if not isinstance(reply, redis.RedisError):
            return reply
        error = classify(reply)
        if error.code and has_moved(error.code):
            self._outdated = True
        return error

    def _node(self, endpoint: Endpoint) -> _Node:
        node = self._nodes.get(endpoint)
        if node is None:
            node = self._nodes[endpoint] = _Node(self._settings, endpoint)
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
        for endpoint in sorted(candidates, key=self._is_failing):
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


def _answer(group: SlotGroup, found: Sequence[Any], replies: list[Any]) -> None:
    """Note a group's replies; one error stands for all."""
    for n, place in enumerate(group.places):
        replies[place] = found[n] if len(found) > 1 else found[0]
