"""Marks: small keys that one process writes at each shard. If a mark is there, so is all that it wrote before."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

from eventbus.backends.redis.cluster.topology import Topology, tag_at
from eventbus.backends.redis.connections.resp import Command
from eventbus.backends.redis.scripts import timeline_registry
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.backends.redis.timelines.evidence import Answers, Asked, replies_of
from eventbus.backends.redis.timelines.registry import Ballot
from eventbus.redis_url import Endpoint

__all__ = ["ENDED", "Marked", "Marks"]

ENDED = "ended"
"""The process that stands for all that ended in order."""


@dataclass(frozen=True, slots=True)
class Marked:
    """The answer of one node.

    Attributes:
        tag: hash tag of the mark.
        at: time there, in ms.
        life: life of the node, which may have another one than it had.
        error: why there is no mark.
    """

    tag: str
    at: int = 0
    life: str = ""
    error: Exception | None = None


class Marks:
    """Writes marks, each under a hash tag whose slot the node has.

    Args:
        keys: names of the keys.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._tags: dict[Endpoint, int] = {}

    def write(
        self, nodes: Sequence[Endpoint], topology: Topology, process: str, former: Mapping[Endpoint, Ballot]
    ) -> Generator[Asked, Answers, dict[Endpoint, Marked]]:
        """Write a mark at nodes.

        Args:
            nodes: the nodes.
            topology: who has which slot.
            process: the process.
            former: the marks before. Those of a process that has ended are removed.

        Returns:
            The answers.
        """
        tags = {node: self._tag(topology, node) for node in nodes}
        asked: dict[Endpoint | None, Sequence[Command]] = {}
        for node, tag in tags.items():
            commands = [timeline_registry.mark(self._keys.mark(tag, process))]
            if process == ENDED and node in former and former[node].process != ENDED:
                commands.append(("DEL", self._keys.mark(former[node].tag, former[node].process)))
            asked[node] = commands
        answers = (yield asked) if asked else {}
        return {node: self._read(node, tag, replies_of(answers[node])) for node, tag in tags.items()}

    def _read(self, node: Endpoint, tag: str, replies: Sequence[object]) -> Marked:
        reply = replies[0]
        if not isinstance(reply, list):
            self._tags[node] = int(tag.removeprefix("timeline")) + 1  # its slot may be moving
            return Marked(tag, error=reply if isinstance(reply, Exception) else TypeError(repr(reply)))
        at, life = reply
        return Marked(tag, int(at), life.decode())

    def _tag(self, topology: Topology, node: Endpoint) -> str:
        return tag_at(topology, node, self._tags.get(node, 0))
