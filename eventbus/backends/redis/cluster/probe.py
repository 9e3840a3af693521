"""Checks the health of a Redis Cluster: does each master publish, and does it take writes?"""

from __future__ import annotations

import asyncio
import contextlib
from itertools import count
from typing import Final

from eventbus.backends.redis.cluster.canaries import write_part
from eventbus.backends.redis.cluster.pipeline import ClusterPipeline
from eventbus.backends.redis.cluster.topology import SLOTS, Topology, slot_of
from eventbus.backends.redis.connections.errors import describe_refusal
from eventbus.backends.redis.connections.resp import Command
from eventbus.backends.redis.format_check import FormatAnnouncement
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.clock import ServerClock
from eventbus.errors import NotPermitted, TransportError, Unavailable
from eventbus.redis_url import Endpoint
from eventbus.settings import BusSettings

__all__ = ["ClusterProbe"]

_LIFE_MS: Final = 60_000


class ClusterProbe:
    """``Probe`` over one connection to each master.

    Args:
        settings: address and time limits.
    """

    def __init__(self, settings: BusSettings) -> None:
        self._keys = Keys.of(settings)
        self._pipeline = ClusterPipeline(settings)
        self.clock = ServerClock()
        self._announced = FormatAnnouncement(settings, self.clock)
        self._tags: dict[Endpoint, str] = {}

    async def publish_canary(self, text: str, instance: str) -> str | None:
        """See ``Probe``. Each master has to publish it: an instance reads channels of all."""
        topology = await self._pipeline.current()
        masters = topology.masters
        if not topology.is_complete:
            self._pipeline.forget()
            slots = topology.slots_of(None)
            raise Unavailable(f"the cluster does not serve slots {slots}", slots=slots, code="CLUSTERDOWN")
        refusals = await asyncio.gather(
            *(
                self._through(topology, node, write_part(text, n, len(masters)), instance)
                for n, node in enumerate(masters)
            ),
            return_exceptions=True,
        )
        with contextlib.suppress(TransportError):  # whether it may write is said above
            self.clock.observe(await self._pipeline.execute(("TIME",)))
            await self._pipeline.execute_all(self._announced.commands(instance))
        for node, refusal in zip(masters, refusals, strict=True):
            if isinstance(refusal, Unavailable) and not isinstance(refusal, NotPermitted):
                slots = topology.slots_of(node)
                text = f"slots {slots} of the cluster do not answer: {refusal}"
                raise Unavailable(text, slots=slots, code=refusal.code) from refusal
            if isinstance(refusal, BaseException):
                raise refusal
        return next((refusal for refusal in refusals if isinstance(refusal, str)), None)

    async def _through(self, topology: Topology, node: Endpoint, part: str, instance: str) -> str | None:
        """Publish through one master, and write a key there."""
        key = f"{self._keys.probe(instance)}:{{{self._tag(topology, node)}}}"
        commands: list[Command] = [("PUBLISH", self._keys.canary, part), ("SET", key, part, "PX", _LIFE_MS)]
        published, written = await self._pipeline.replies_of(node, commands)
        for reply in (published, written):
            if isinstance(reply, TransportError) and (reply is published or reply.code in {"", "MOVED", "CLUSTERDOWN"}):
                raise reply
        return describe_refusal(written) if isinstance(written, TransportError) else None

    def _tag(self, topology: Topology, node: Endpoint) -> str:
        """Return a hash tag whose slot the master has."""
        known = self._tags.get(node)
        if known is None or topology.owner(slot_of(f"{{{known}}}")) != node:
            tags = (str(n) for n in count())
            known = self._tags[node] = next(tag for tag in tags if topology.owner(slot_of(f"{{{tag}}}")) == node)
            if len(self._tags) > SLOTS:
                self._tags.clear()
        return known

    async def aclose(self) -> None:
        """See ``Probe``. Workers need not consider this instance any more."""
        for command in self._announced.withdrawal:
            with contextlib.suppress(TransportError):
                await self._pipeline.execute(command)
        await self._pipeline.aclose()
