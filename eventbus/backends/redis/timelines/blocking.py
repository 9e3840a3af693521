"""Timelines of a cluster for the outbox's thread: it joins a node before it uses a channel there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final

import redis

from eventbus.backends.redis.cluster.commands import SlotGroup
from eventbus.backends.redis.cluster.topology import Topology, slot_of
from eventbus.backends.redis.connections.blocking import BlockingConnection
from eventbus.backends.redis.connections.errors import classify
from eventbus.backends.redis.connections.resp import Command
from eventbus.backends.redis.scripts.script import Call
from eventbus.backends.redis.timelines.evidence import Answers, Asked
from eventbus.backends.redis.timelines.voter import ShardVoter
from eventbus.errors import EventBusError, Unavailable
from eventbus.protocol.cursor import Position
from eventbus.redis_url import Endpoint

__all__ = ["Ask", "BlockingTimelines"]

Ask = Callable[[Endpoint | None, Sequence[Command]], list[Any]]
"""Runs commands at a node; ``None``: at the nodes that have their slots."""

_PENDING: Final = (
    "a server of the cluster has restarted, and it is not known yet whether it lost data; the outbox waits"
)


class BlockingTimelines:
    """Runs the steps of a voter over blocking connections.

    Args:
        voter: what this process knows.
        ask: runs commands.
    """

    def __init__(self, voter: ShardVoter, ask: Ask) -> None:
        self._voter = voter
        self._ask = ask

    def admit(self, node: Endpoint, connection: BlockingConnection, topology: Topology) -> list[Any] | EventBusError:
        """Join a node, unless the present connection has. Renew this process' mark there if it is due.

        Args:
            node: the node.
            connection: the connection to it.
            topology: who has which slot.

        Returns:
            The connection's greeting: what is sent now needs this connection. Or why the node's channels must not be
            used.
        """
        voter = self._voter
        try:
            greeting = connection.connect()
            if not voter.has_joined(node, greeting):
                if connection.limit is not None:
                    return Unavailable("there is no connection")
                if not self._drive(voter.join(node, greeting)):
                    return Unavailable(_PENDING)
            due = voter.renewal_due(node)
            if (due or voter.outdated) and connection.limit is None:
                self._drive(voter.renew([node] if due else [], topology))
        except EventBusError as error:
            return error
        except (redis.RedisError, OSError) as error:
            return classify(error)
        return greeting

    def stamp(self, node: Endpoint, group: SlotGroup, calls: Sequence[Call[Any]]) -> None:
        """Write the commands of calls anew, with the timeline of their slot.

        Args:
            node: the node, which this process has joined.
            group: the commands.
            calls: the calls of the round trip.
        """
        if group.slot is None:
            return
        timeline = self._voter.timeline(node, group.slot)
        group.commands = [calls[place].command_on(timeline) for place in group.places]

    def refused(self, group: SlotGroup, error: Exception) -> None:
        """Take the timeline that a script named when it refused the present one.

        Args:
            group: the commands.
            error: the error of the script.
        """
        if group.slot is not None:
            self._voter.refused(group.slot, error)

    def note_write(self, topology: Topology, channel: str, position: Position) -> None:
        """Note a write that Redis has acknowledged.

        Args:
            topology: who has which slot.
            channel: the channel.
            position: its end after the write.
        """
        self._voter.note_write(topology.owner(slot_of(f"{{{channel}}}")), channel, position)

    @property
    def rest_in(self) -> float | None:
        """Seconds until ``rest`` is due; None: it is not due."""
        return self._voter.rest_in

    def rest(self, admit: Callable[[Endpoint], list[Any] | EventBusError], topology: Topology) -> None:
        """Say that this process writes nothing for now, at each shard where this is due.

        Args:
            admit: joins a node.
            topology: who has which slot.

        Raises:
            Unavailable, Refused: for the first node that did not answer.
        """
        problem: EventBusError | None = None
        for node in {topology.owner(slot) for slot in self._voter.rest()} - {None}:
            assert node is not None
            found = admit(node)
            if isinstance(found, EventBusError):
                problem = found
            elif node in self._voter.nodes:
                self._drive(self._voter.renew([node], topology, idle=True))
        if problem is not None:
            raise problem

    def leave(self, topology: Topology) -> None:
        """End the evidence of this process in order.

        Args:
            topology: who has which slot.
        """
        if not self._voter.nodes:
            return
        with contextlib.suppress(redis.RedisError, OSError, EventBusError):
            self._drive(self._voter.renew(self._voter.nodes, topology, idle=True, ended=True))

    def _drive(self, steps: Generator[Asked, Answers, bool]) -> bool:
        try:
            asked = next(steps)
            while True:
                asked = steps.send({node: self._answer(node, commands) for node, commands in asked.items()})
        except StopIteration as end:
            return bool(end.value)

    def _answer(self, node: Endpoint | None, commands: Sequence[Command]) -> list[Any] | Exception:
        try:
            return self._ask(node, commands)
        except (redis.RedisError, OSError) as error:
            return classify(error)
        except EventBusError as error:
            return error
