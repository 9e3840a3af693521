"""Timelines of a cluster for an event loop: it joins a node before it uses a channel there."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Generator, Sequence
from typing import Any, Final

from eventbus.backends.redis.cluster.pipeline import ClusterPipeline
from eventbus.backends.redis.cluster.topology import slot_of
from eventbus.backends.redis.connections.errors import OUTDATED
from eventbus.backends.redis.connections.pipeline import Reply
from eventbus.backends.redis.connections.resp import Command
from eventbus.backends.redis.connections.voter import Heard
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.backends.redis.scripts.script import Call
from eventbus.backends.redis.timelines.evidence import Answers, Asked
from eventbus.backends.redis.timelines.voter import ShardVoter
from eventbus.errors import TransportError, Unavailable
from eventbus.redis_url import Endpoint
from eventbus.settings import BusSettings

__all__ = ["PipelinedTimelines"]

# Seconds that the end may take, and those of one wait for a verdict on the data.
_LEAVE: Final = 0.2
_VERDICT: Final = 1.0
_PAUSE: Final = 0.05


class PipelinedTimelines:
    """Runs calls at the nodes of a cluster, with the timelines of their slots.

    Args:
        settings: address, time limits and the keys' prefix.
        most_waiting: maximum number of calls that wait for a reply of one node.

    Attributes:
        pipeline: the connections.
    """

    def __init__(self, settings: BusSettings, *, most_waiting: int) -> None:
        self.pipeline = ClusterPipeline(settings, most_waiting=most_waiting)
        self._voter = ShardVoter(settings, Keys.of(settings), active=False)
        self._joining: dict[Endpoint, asyncio.Future[None]] = {}

    async def run(self, call: Call[Any]) -> Reply:
        """Run a script that compares the channel's timeline.

        Args:
            call: the call.

        Returns:
            The reply.

        Raises:
            Unavailable, Refused: the node did not answer, or rejected the call.
        """
        slot = slot_of(call.keys[0])

        async def prepare(node: Endpoint) -> Command:
            await self._admit(node)
            return call.command_on(self._voter.timeline(node, slot))

        try:
            return await self.pipeline.execute_joined(slot, prepare)
        except Unavailable as error:
            if error.code == OUTDATED:
                self._voter.refused(slot, error)
            raise

    def be_voter(self, heard: Heard) -> None:
        """See ``Reader``.

        Args:
            heard: returns the last position that was received.
        """
        self._voter.active, self._voter.heard = True, heard

    async def renew(self) -> bool:
        """See ``Reader``. A node that does not answer affects only its own channels."""
        for _ in range(2):
            topology = await self.pipeline.current()
            for failed in await asyncio.gather(*map(self._admit, topology.masters), return_exceptions=True):
                if failed is not None:
                    self.pipeline.forget()
            await self._drive(self._voter.renew(self._voter.joined_among(topology.masters), topology))
            if not self.pipeline.outdated:
                break  # otherwise a mark was refused, since another node has taken over: it needs a statement soon
        return self._voter.changed()

    async def leave(self) -> None:
        """End the evidence of this process in order, if that takes little time."""
        if not self._voter.nodes:
            return
        with contextlib.suppress(TransportError, TimeoutError):
            async with asyncio.timeout(_LEAVE):
                topology = await self.pipeline.current()
                await self._drive(self._voter.renew(self._voter.nodes, topology, idle=True, ended=True))

    async def _admit(self, node: Endpoint) -> None:
        """Join a node, unless the present connection has. Commands of the same turn use this connection."""
        while not self._voter.has_joined(node, greeting := await self.pipeline.connect_to(node)):
            joining = self._joining.get(node)
            if joining is None:
                # All calls that wait share one attempt, which goes on if one of them is cancelled.
                joining = self._joining[node] = asyncio.ensure_future(self._join(node, greeting))
                joining.add_done_callback(lambda done: self._join_ended(node, done))
            await asyncio.shield(joining)
        if self._voter.outdated and await self._drive(self._voter.renew([], await self.pipeline.current())):
            await self._admit(node)  # the connection may be another one now

    def _join_ended(self, node: Endpoint, done: asyncio.Future[None]) -> None:
        del self._joining[node]
        if not done.cancelled():
            done.exception()  # marks it as retrieved

    async def _join(self, node: Endpoint, greeting: object) -> None:
        end = time.monotonic() + _VERDICT
        while not await self._drive(self._voter.join(node, greeting)):
            if time.monotonic() > end:
                raise Unavailable(f"node {node} has restarted, and it is not known yet whether it lost data")
            await asyncio.sleep(_PAUSE)

    async def _drive(self, steps: Generator[Asked, Answers, bool]) -> bool:
        try:
            asked = next(steps)
            while True:
                replies = await asyncio.gather(*(self._ask(node, commands) for node, commands in asked.items()))
                asked = steps.send(dict(zip(asked, replies, strict=True)))
        except StopIteration as end:
            return bool(end.value)

    async def _ask(self, node: Endpoint | None, commands: Sequence[Command]) -> list[Reply] | Exception:
        try:
            if node is None:
                return [await self.pipeline.execute(command) for command in commands]
            return await self.pipeline.replies_of(node, commands)
        except TransportError as error:
            return error
