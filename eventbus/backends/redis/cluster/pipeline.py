"""Pipelined commands to the nodes of a Redis Cluster, for an event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from eventbus.backends.redis.cluster.topology import (
    Redirection,
    Topology,
    has_moved,
    read_redirection,
    slot_of_command,
)
from eventbus.backends.redis.connections.locator import AsyncFixedLocator
from eventbus.backends.redis.connections.pipeline import Pipeline, Reply
from eventbus.backends.redis.connections.resp import Command
from eventbus.errors import TransportError, Unavailable
from eventbus.redis_url import Endpoint
from eventbus.settings import BusSettings

__all__ = ["ClusterPipeline"]

log = logging.getLogger(__name__)

_REDIRECTIONS: Final = 5  # times that one call follows nodes that send it elsewhere
_REFRESH_S: Final = 0.1  # seconds between two reads of the topology, at least
_TRY_AGAIN_S: Final = 0.05  # pause while the keys of a call are at two nodes


class ClusterPipeline:
    """A ``Pipeline`` to each node that is needed. It follows slots that move. It sends a command again
    only if a node has refused it.

    Args:
        settings: address and time limits.
        most_waiting: maximum number of calls that wait for a reply of one node.
    """

    def __init__(self, settings: BusSettings, *, most_waiting: int = 20_000) -> None:
        self._settings = settings
        self._most_waiting = most_waiting
        self._pipelines: dict[Endpoint, Pipeline] = {}
        self._topology: Topology | None = None
        self.endpoint: Endpoint | None = None  # there are several
        self._outdated = True
        self._refreshed = 0.0
        self._refreshing: asyncio.Task[Topology] | None = None

    async def execute(self, command: Command) -> Reply:
        """Run one command at the node that has its slot.

        Args:
            command: the command; ``SCRIPT LOAD`` goes to all nodes.

        Returns:
            The reply.

        Raises:
            Unavailable: the node may or may not have carried it out.
            Refused: the node rejects it; ``ScriptUnknown`` if it does not have the script.
        """
        slot = slot_of_command(command)
        if slot is None:
            return await self._execute_everywhere(command)
        return await self._follow(slot, None, command)

    async def execute_joined(self, slot: int, prepare: Callable[[Endpoint], Awaitable[Command]]) -> Reply:
        """Run one command at the node that has a slot. The command depends on the node.

        Args:
            slot: the slot.
            prepare: returns the command for a node. It is awaited immediately before the command goes out.

        Returns:
            The reply.

        Raises:
            Unavailable, Refused: as ``execute``.
        """
        return await self._follow(slot, prepare, ())

    async def execute_all(self, commands: Sequence[Command]) -> list[Reply]:
        """Run commands, each at the node that has its slot.

        Args:
            commands: the commands.

        Returns:
            The replies in order.

        Raises:
            Unavailable, Refused: as ``execute``, for the first that failed.
        """
        replies = await asyncio.gather(*map(self.execute, commands), return_exceptions=True)
        for reply in replies:
            if isinstance(reply, BaseException):
                raise reply
        return replies

    async def replies_of(self, node: Endpoint, commands: Sequence[Command]) -> list[Reply]:
        """Run commands at one node in one round trip, and return errors too.

        Args:
            node: the node.
            commands: the commands.

        Returns:
            The replies in order; ``Unavailable`` or ``Refused`` for each that failed.

        Raises:
            Unavailable: nothing was sent.
        """
        try:
            replies = await self._pipeline(node).replies(commands)
        except Unavailable:
            self._outdated = True
            raise
        for reply in replies:
            if isinstance(reply, TransportError):
                self._learn(node, reply)
        return replies

    async def current(self) -> Topology:
        """Return who has which slot; read it again if it may have changed.

        Raises:
            Unavailable: no node answers.
        """
        known = self._topology
        now = asyncio.get_running_loop().time()
        if known is not None and (not self._outdated or now - self._refreshed < _REFRESH_S):
            return known
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh())
            self._refreshing.add_done_callback(self._refreshed_now)
        # All calls share one attempt, which goes on if one of them is cancelled.
        return await asyncio.shield(self._refreshing)

    async def connect(self) -> list[Reply]:
        """Return nothing: no question is asked of all nodes."""
        return []

    @property
    def outdated(self) -> bool:
        """Whether slots may have other owners now."""
        return self._outdated

    def forget(self) -> None:
        """Read the topology again at the next call."""
        self._outdated = True

    async def aclose(self) -> None:
        """Close all connections. All waiting calls get an error."""
        if self._refreshing is not None:
            self._refreshing.cancel()
        for pipeline in self._pipelines.values():
            await pipeline.aclose()

    async def connect_to(self, node: Endpoint) -> list[Reply]:
        """Connect to one node if there is no connection. Commands that follow in the same turn use it.

        Args:
            node: the node.

        Returns:
            An object that identifies the connection.

        Raises:
            Unavailable: there is no connection.
        """
        try:
            return await self._pipeline(node).connect()
        except Unavailable:
            self._outdated = True
            raise

    # --- inside ------------------------------------------------------------------------------------------------

    async def _follow(
        self, slot: int, prepare: Callable[[Endpoint], Awaitable[Command]] | None, command: Command
    ) -> Reply:
        """Run a command where its slot is, also while the slot moves."""
        deadline = asyncio.get_running_loop().time() + self._settings.socket_timeout
        once: Endpoint | None = None
        for _ in range(_REDIRECTIONS):
            node = once or await self._owner(slot)
            try:
                if prepare is not None:
                    command = await prepare(node)
                return await self._ask(node, command, asking=once is not None)
            except Unavailable as error:
                elsewhere = self._learn(node, error)
                if elsewhere is not None:
                    once = elsewhere.node if elsewhere.once else None
                elif error.code == "TRYAGAIN" and asyncio.get_running_loop().time() < deadline:
                    once = None
                    await asyncio.sleep(_TRY_AGAIN_S)
                else:
                    raise
        raise Unavailable("the cluster moves this slot now; try again later")

    async def _ask(self, node: Endpoint, command: Command, *, asking: bool) -> Reply:
        pipeline = self._pipeline(node)
        if not asking:
            return await pipeline.execute(command)
        _, reply = await pipeline.replies([("ASKING",), command])
        if isinstance(reply, BaseException):
            raise reply
        return reply

    async def _execute_everywhere(self, command: Command) -> Reply:
        """Run a command at each node that is in use, also at one that gets its first slot now."""
        nodes = dict.fromkeys([*(await self.current()).masters, *self._pipelines])
        replies = await asyncio.gather(
            *(self._pipeline(node).execute(command) for node in nodes), return_exceptions=True
        )
        done = [reply for reply in replies if not isinstance(reply, BaseException)]
        if done:
            return done[0]
        raise next(reply for reply in replies if isinstance(reply, BaseException))

    def _learn(self, node: Endpoint, error: TransportError) -> Redirection | None:
        """Note what an error says of the cluster. Return where to ask instead, if it says so."""
        elsewhere = read_redirection(str(error), node)
        if elsewhere is not None and self._topology is not None:
            self._topology.note(elsewhere)
        self._outdated = self._outdated or has_moved(error.code)
        return elsewhere

    async def _owner(self, slot: int) -> Endpoint:
        owner = (await self.current()).owner(slot)
        if owner is None:
            self._outdated = True
            raise Unavailable(f"no node of the cluster serves slot {slot}", code="CLUSTERDOWN")
        return owner

    def _pipeline(self, node: Endpoint) -> Pipeline:
        pipeline = self._pipelines.get(node)
        if pipeline is None:
            locator = AsyncFixedLocator(node)
            pipeline = Pipeline(self._settings, most_waiting=self._most_waiting, locator=locator)
            self._pipelines[node] = pipeline
        return pipeline

    async def _refresh(self) -> Topology:
        """Ask all known nodes at the same time, and take the first answer: one that is down must not delay it."""
        self._refreshed = asyncio.get_running_loop().time()
        known = self._topology.masters if self._topology is not None else []
        nodes = list(dict.fromkeys((*known, *self._settings.redis.nodes)))
        asking = [asyncio.ensure_future(self._read_topology(node)) for node in nodes]
        error = Unavailable("no node of the cluster answers")
        try:
            for answer in asyncio.as_completed(asking):
                try:
                    found = await answer
                except Unavailable as one:
                    error = one
                    continue
                self._topology, self._outdated = found, False
                await self._drop_unused(found)
                return found
        finally:
            for one_asking in asking:
                one_asking.cancel()
        raise error

    async def _drop_unused(self, topology: Topology) -> None:
        """Close connections to nodes that have no slots any more."""
        kept = {*topology.masters, *self._settings.redis.nodes}
        for node in self._pipelines.keys() - kept:
            await self._pipelines.pop(node).aclose()

    async def _read_topology(self, node: Endpoint) -> Topology:
        topology = Topology.read(await self._pipeline(node).execute(("CLUSTER", "SLOTS")), node)
        if not topology.masters:
            raise Unavailable(f"node {node} knows no owner of any slot")
        return topology

    def _refreshed_now(self, task: asyncio.Task[Topology]) -> None:
        self._refreshing = None
        if not task.cancelled():
            task.exception()  # marks it as retrieved: asyncio need not warn if no call waits
