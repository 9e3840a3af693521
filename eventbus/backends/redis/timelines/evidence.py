"""The last writes of one process at each shard, and their trace at a server that took over.

Generators yield commands and receive the replies, so a thread and an event loop use the same steps.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from eventbus.backends.redis.cluster.topology import Topology, slot_of
from eventbus.backends.redis.connections.resp import Command
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.backends.redis.scripts.timeline import KEPT
from eventbus.backends.redis.timelines.registry import Ballot, Joining, Registry
from eventbus.backends.redis.timelines.slot_map import SlotMap, combine
from eventbus.protocol.cursor import Position
from eventbus.protocol.timeline import Evidence, Statement
from eventbus.redis_url import Endpoint
from eventbus.settings import BusSettings

__all__ = [
    "ROLE",
    "Answers",
    "Asked",
    "Exchange",
    "Statements",
    "Written",
    "all_of",
    "compare",
    "life_of",
    "lives_elsewhere",
    "prove_newest",
    "replies_of",
    "slot_of_tag",
]

ROLE: Final[Command] = ("INFO", "replication")
"""Asks a node for its role and its life."""
_LIFE: Final = re.compile(rb"master_replid:([0-9a-f]{10})")

Asked = Mapping[Endpoint | None, Sequence[Command]]
"""Commands for nodes; ``None``: for the nodes that have their slots."""
Answers = Mapping[Endpoint | None, list[Any] | Exception]
"""The replies; errors are among them, or stand for all of a node."""
Exchange = Generator[Asked, Answers, bool]


@dataclass(slots=True)
class Written:
    """The last writes of this process in one life.

    Attributes:
        ballot: the entry of this process in the registry.
        fork: number of the last fork of the mark's slot at that time.
        renewed: when the mark was renewed, in seconds of a monotonic clock.
        wrote: when this process wrote after it.
        last: channel, position and number of the slot's last fork, of a write after the mark.
        implied: the last position that was heard before the mark.
    """

    ballot: Ballot
    fork: str
    renewed: float
    wrote: float = 0.0
    last: tuple[str, Position, str] | None = None
    implied: tuple[str, Position] | None = None

    @property
    def used(self) -> float:
        """When this process wrote last, in seconds of a monotonic clock."""
        return max(self.wrote, self.renewed)


@dataclass(frozen=True, slots=True)
class Statements:
    """The result of a comparison with the data of a server.

    Attributes:
        checked: lives whose evidence was looked for.
        gone: slots of missing evidence, with their fork then.
        intact: lives whose last write is there.
    """

    checked: Sequence[str]
    gone: Sequence[tuple[int, str]]
    intact: Sequence[str]


def compare(
    node: Endpoint, slots: SlotMap, written: Iterable[Written], keys: Keys, settings: BusSettings, now: float
) -> Generator[Asked, Answers, Statements]:
    """Compare what this process wrote in earlier lives with what a node has.

    Args:
        node: the node.
        slots: the set of its slots.
        written: what was written in each life whose data the node may have.
        keys: names of the keys.
        settings: how long channels live.
        now: seconds of a monotonic clock.

    Returns:
        The result. A life whose evidence is in slots of other nodes is not among it.

    Raises:
        Unavailable: the node did not answer.
    """
    checked: list[str] = []
    gone: list[tuple[int, str]] = []
    intact: list[str] = []
    for one in written:
        has_mark = bool(slots.at(slot_of_tag(one.ballot.tag)))
        has_last = one.last is not None and bool(slots.at(slot_of_tag(one.last[0])))
        asked: list[Command] = [("GET", keys.mark(one.ballot.tag, one.ballot.process))] if has_mark else []
        if one.last is not None and has_last:
            asked.append(("HMGET", keys.channel(one.last[0])[0], "epoch", "offset", "parent", "fork"))
        if not asked:
            continue
        checked.append(one.ballot.life)
        replies = all_of((yield {node: asked})[node])
        age = now - one.renewed
        found: list[tuple[Statement, int, str]] = []
        if has_mark:
            at = int(replies[0]) if replies[0] else None
            mark = Evidence(one.ballot.at, fresh=age < KEPT.total_seconds() / 2)
            found.append((mark.state(at, None), slot_of_tag(one.ballot.tag), one.fork))
        if one.last is not None and has_last:
            channel, position, fork = one.last
            last = Evidence(position=position, fresh=age < settings.channel_ttl(channel))
            found.append((last.state(None, *_here(replies[-1])), slot_of_tag(channel), fork))
        gone += [(slot, fork) for statement, slot, fork in found if statement == "gone"]
        # A later write that is somewhere else proves nothing here.
        if {statement for statement, _, _ in found} == {"intact"} and has_last == (one.last is not None):
            intact.append(one.ballot.life)
    return Statements(checked, gone, intact)


def prove_newest(
    node: Endpoint, joining: Joining, registry: Registry, ballots: list[Ballot], keys: Keys
) -> Generator[Asked, Answers, list[Ballot]]:
    """Look for the newest mark of a process that was idle or has ended. If it is there, so is all before it.

    Args:
        node: the node.
        joining: the node's life and slots.
        registry: the registry.
        ballots: what the registry knows of processes.
        keys: names of the keys.

    Returns:
        The ballots, with what the mark proves.

    Raises:
        Unavailable: the node did not answer.
    """
    before = combine(lambda here, life: life if here else "", joining.slots, registry.lives).found
    asked = [one for one in ballots if one.life in before - joining.live]
    newest = max(asked, key=lambda one: one.at, default=None)
    if newest is None or not newest.idle or not joining.slots.at(slot_of_tag(newest.tag)):
        return ballots
    (reply,) = all_of((yield {node: [("GET", keys.mark(newest.tag, newest.process))]})[node])
    if not reply or int(reply) < newest.at:
        return ballots
    return [replace(one, intact_in=joining.life) if one is newest else one for one in ballots]


def lives_elsewhere(node: Endpoint, others: Topology) -> Generator[Asked, Answers, frozenset[str]]:
    """Return the lives of the other masters.

    Args:
        node: the node.
        others: who has which slot, as the node knows it.
    """
    masters = [one for one in others.masters if one != node]
    answers = (yield dict.fromkeys(masters, (ROLE,))) if masters else {}
    infos = [answer[0] for answer in answers.values() if isinstance(answer, list)]
    return frozenset(life for info in infos if isinstance(info, bytes) and (life := life_of(info)) is not None)


def life_of(info: bytes) -> str | None:
    """Return the life of a server; None: it is no master.

    Args:
        info: reply to ``ROLE``.
    """
    found = _LIFE.search(info)
    return found[1].decode() if found is not None and b"role:master" in info else None


def slot_of_tag(tag: str) -> int:
    """Return the slot of a hash tag.

    Args:
        tag: the tag, such as a channel.
    """
    return slot_of(f"{{{tag}}}")


def replies_of(answer: list[Any] | Exception) -> list[Any]:
    """Return the replies; an error that stands for all is the only one.

    Args:
        answer: the replies of one node.
    """
    return [answer] if isinstance(answer, Exception) else answer


def all_of(answer: list[Any] | Exception) -> list[Any]:
    """Return the replies if none is an error.

    Args:
        answer: the replies of one node.

    Raises:
        Exception: the first error among them.
    """
    for reply in replies_of(answer):
        if isinstance(reply, Exception):
            raise reply
    return replies_of(answer)


def _here(reply: Sequence[bytes | None]) -> tuple[Position | None, str, int]:
    epoch, offset, parent, fork = reply
    here = Position(epoch.decode(), int(offset or 0)) if epoch else None
    return here, (parent or b"").decode(), int(fork or 0)
