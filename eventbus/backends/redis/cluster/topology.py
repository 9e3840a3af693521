"""Which node of a Redis Cluster has which slot. Pure: connections report what nodes answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Any, Final

from redis.crc import key_slot

from eventbus.backends.redis.connections.resp import Command
from eventbus.redis_url import Endpoint

__all__ = [
    "SLOTS",
    "_SLOT_AT",
    "Redirection",
    "Topology",
    "has_moved",
    "read_redirection",
    "slot_of",
    "slot_of_command",
    "tag_at",
]

SLOTS: Final = 16_384
"""Number of slots of each cluster."""

_SLOT_AT: Final[Mapping[str, int]] = {"EVALSHA": 3, "EVAL": 3}
"""Place of the first key in commands that do not begin with it."""

_REDIRECTION: Final = re.compile(r"\b(MOVED|ASK) (\d{1,5}) ([^ ()]*):(\d{1,5})\b")
_WITHOUT_KEY: Final = frozenset(
    {"ASKING", "CLUSTER", "EXEC", "INFO", "MULTI", "PING", "PUBLISH", "PUBSUB", "SCRIPT", "TIME", "WAIT"}
)
_RANGES: Final = 5  # ranges of slots in a text
_OUTDATED: Final = frozenset({"", "CLUSTERDOWN", "MOVED", "MASTERDOWN", "READONLY", "LOADING"})


@lru_cache(maxsize=8192)
def slot_of(key: str) -> int:
    """Return the slot of a key.

    Args:
        key: the key; only the part between the first braces counts.
    """
    return int(key_slot(key.encode()))


def slot_of_command(command: Command) -> int | None:
    """Return the slot of a command's keys.

    Args:
        command: a command whose keys are all in one slot.

    Returns:
        The slot; None if any node can carry it out.
    """
    name = str(command[0])
    return None if name in _WITHOUT_KEY else slot_of(str(command[_SLOT_AT.get(name, 1)]))


@dataclass(frozen=True, slots=True)
class Redirection:
    """A node's answer that another node has the slot.

    Attributes:
        slot: the slot.
        node: the other node.
        once: whether only this command is for the other node (``ASK``), since the slot is being moved.
    """

    slot: int
    node: Endpoint
    once: bool


def read_redirection(text: str, answered: Endpoint) -> Redirection | None:
    """Find ``MOVED`` or ``ASK`` in an error.

    Args:
        text: the error.
        answered: the node that answered. It is meant if the error names no host.

    Returns:
        The redirection; None if the error is another one.
    """
    found = _REDIRECTION.search(text)
    if found is None:
        return None
    host = found[3].strip("[]") or answered.host
    return Redirection(int(found[2]), Endpoint(host, int(found[4])), found[1] == "ASK")


def has_moved(code: str) -> bool:
    """Return whether slots may have other owners now, so that the topology is to be read again.

    Args:
        code: the error's code; empty for a lost connection.
    """
    return code in _OUTDATED


def tag_at(topology: Topology, node: Endpoint, first: int = 0) -> str:
    """Return a hash tag whose slot a node has, such as ``timeline7``.

    Args:
        topology: who has which slot.
        node: the node; it has a slot.
        first: the first number to try.
    """
    tags = (f"timeline{number}" for number in count(first))
    return next(tag for tag in tags if topology.owner(slot_of(f"{{{tag}}}")) == node)


class Topology:
    """The owners of all slots, as far as known.

    Args:
        nodes: owner of each slot; None where no owner is known.
    """

    def __init__(self, nodes: Sequence[Endpoint | None] = (None,) * SLOTS) -> None:
        self._nodes = list(nodes)

    @classmethod
    def read(cls, reply: Iterable[Any], answered: Endpoint) -> Topology:
        """Read the reply to ``CLUSTER SLOTS``.

        Args:
            reply: the reply.
            answered: the node that answered. It is meant where the reply names no host.

        Returns:
            The topology.
        """
        nodes: list[Endpoint | None] = [None] * SLOTS
        for first, last, master, *_ in reply:
            host = (master[0] or b"").decode()
            node = Endpoint(host if host not in {"", "?"} else answered.host, int(master[1]))
            nodes[first : last + 1] = [node] * (last + 1 - first)
        return cls(nodes)

    @property
    def owners(self) -> tuple[Endpoint | None, ...]:
        """The master of each slot; None where no master is known."""
        return tuple(self._nodes)

    def owner(self, slot: int) -> Endpoint | None:
        """Return the master that has a slot.

        Args:
            slot: the slot.
        """
        return self._nodes[slot]

    def slots_of(self, node: Endpoint | None) -> str:
        """Return the slots of a master in text, such as ``0-5460, 6000``.

        Args:
            node: the master; None: the slots without a master.
        """
        ranges: list[tuple[int, int]] = []
        for slot, owner in enumerate(self._nodes):
            if owner != node:
                continue
            if ranges and ranges[-1][1] == slot - 1:
                ranges[-1] = ranges[-1][0], slot
            else:
                ranges.append((slot, slot))
        shown = [str(first) if first == last else f"{first}-{last}" for first, last in ranges[:_RANGES]]
        return ", ".join([*shown, "…"] if len(ranges) > _RANGES else shown)

    def note(self, redirection: Redirection) -> None:
        """Take over what a node answered. ``ASK`` changes nothing: the slot still has its old owner.

        Args:
            redirection: the answer.
        """
        if not redirection.once:
            self._nodes[redirection.slot] = redirection.node

    @property
    def masters(self) -> list[Endpoint]:
        """All owners, each once, in the order of their slots."""
        return [node for node in dict.fromkeys(self._nodes) if node is not None]

    @property
    def is_complete(self) -> bool:
        """Whether each slot has an owner."""
        return None not in self._nodes
