"""The registry of a cluster's timelines, and the verdict on one shard. Pure.

Each start of a server and each promotion begins a *life*. The registry names the life that has the data of each slot,
and the number of the last fork of each slot. The number is the slot's timeline: a channel with a lower one forks.
A moved slot keeps its number, so it means the same at each shard.

The registry is one document at one shard. Each process remembers the newest version that it read, and writes it again
if that shard goes back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from eventbus.backends.redis.timelines.slot_map import EMPTY, SlotMap, combine
from eventbus.protocol.timeline import Timeline, Verdict, Voters, judge

__all__ = ["ALL_SLOTS", "Ballot", "Joining", "Pending", "Registry", "claim", "decide", "timeline_of"]

ALL_SLOTS: Final = SlotMap((0,), ("1",))
"""A set of slots is a map: its slots have a value, the others have none."""

_PENDING: Final = 64  # lives without a verdict that a registry remembers


@dataclass(frozen=True, slots=True)
class Ballot:
    """The entry of one process for one life to which it wrote.

    Attributes:
        process: the process.
        life: the life.
        at: time at that server when the process renewed its mark there, in ms.
        idle: whether the process wrote nothing since.
        tag: hash tag of the mark.
        intact_in: the later life in which the process found its last write; empty: none.
    """

    process: str
    life: str
    at: int
    idle: bool
    tag: str
    intact_in: str = ""


@dataclass(frozen=True, slots=True)
class Pending:
    """A life without a verdict.

    Attributes:
        since: when a process first met it, in ms.
        parents: the lives whose data it has.
        slots: the set of slots that it had.
    """

    since: int
    parents: frozenset[str]
    slots: SlotMap


@dataclass(frozen=True, slots=True)
class Registry:
    """The document.

    Attributes:
        version: grows with each write.
        lives: the life that has the data of each slot.
        forks: number of each slot's last fork.
        pending: lives without a verdict.
    """

    version: int = 0
    lives: SlotMap = EMPTY
    forks: SlotMap = EMPTY
    pending: Mapping[str, Pending] = field(default_factory=dict)

    def accepts(self, life: str) -> bool:
        """Return whether the verdict on a life is known.

        Args:
            life: the life.
        """
        return life in self.lives.values

    def asks(self, ballot: Ballot) -> bool:
        """Return whether a process may have to state whether its last write is there.

        Args:
            ballot: the process and the life to which it wrote.
        """
        return ballot.life in self.lives.values or any(ballot.life in one.parents for one in self.pending.values())

    def remembered(self, known: Registry) -> Registry:
        """Return what is right if the registry may have gone back.

        Args:
            known: the newest registry that this process has read.

        Returns:
            A registry that no process has written, if it differs.
        """
        forks = combine(_later, self.forks, known.forks)
        if self.version >= known.version:
            return replace(self, forks=forks)
        return replace(self, version=known.version, lives=known.lives, forks=forks)


@dataclass(frozen=True, slots=True)
class Joining:
    """A server that a process has connected to.

    Attributes:
        life: its life.
        slots: the set of its slots.
        live: lives that serve at other masters now.
        has_registry: whether the registry is at this server.
    """

    life: str
    slots: SlotMap
    live: frozenset[str]
    has_registry: bool


def decide(
    registry: Registry, joining: Joining, ballots: Iterable[Ballot], renewal_ms: int, patience_ms: int, now: int
) -> tuple[Verdict, Registry]:
    """Decide whether a life has all data of the lives before.

    A process that finds its last write proves that all earlier writes are there. So a process that was idle by then
    need not be asked.

    Args:
        registry: the registry.
        joining: the server with the life.
        ballots: what the registry knows of processes.
        renewal_ms: time after which a process that writes renews its mark.
        patience_ms: time after which the data count as lost.
        now: the time at the registry, in ms.

    Returns:
        The verdict, and the registry with it.
    """
    if registry.accepts(joining.life):
        return "clean", registry
    if not registry.version:
        # There was none, or it is lost. No process remembers it.
        return "forked", _fork(registry, joining, Pending(now, frozenset(), ALL_SLOTS), now, everything=True)
    before = combine(lambda here, life: life if here else "", joining.slots, registry.lives).found
    pending = registry.pending.get(joining.life) or Pending(now, frozenset(before - joining.live), joining.slots)
    asked = [one for one in ballots if one.life in pending.parents]
    proven = max((one.at for one in asked if one.intact_in == joining.life), default=0)
    open_ = [one for one in asked if one.intact_in != joining.life]
    missing = sum(one.at + (0 if one.idle else renewal_ms) > proven for one in open_)
    waited = now - pending.since >= patience_ms
    verdict = (
        judge(Voters(False, False, proven > 0, missing, len(asked), False, waited)) if pending.parents else "clean"
    )
    if verdict == "pending":
        pending = replace(pending, slots=combine(_either, pending.slots, joining.slots))
        waiting = {**registry.pending, joining.life: pending}
        return verdict, replace(registry, pending=dict(list(waiting.items())[-_PENDING:]))
    if verdict == "clean":
        return verdict, _accept(registry, joining, pending)
    # If no process remembers this server's data, it may have forgotten forks of other shards too.
    everything = joining.has_registry and not proven
    return verdict, _fork(registry, joining, pending, now, everything=everything)


def lose(registry: Registry, joining: Joining, now: int) -> Registry:
    """Fork a server's slots: a process has stated that its last write is gone.

    Args:
        registry: the registry.
        joining: the server.
        now: the time at the registry, in ms.

    Returns:
        The registry with the fork.
    """
    before = combine(lambda here, life: life if here else "", joining.slots, registry.lives).found
    found = Pending(now, frozenset(before - joining.live - {joining.life}), joining.slots)
    return _fork(registry, joining, registry.pending.get(joining.life) or found, now, everything=False)


def claim(registry: Registry, serving: SlotMap) -> Registry:
    """Note which life serves which slot. A slot passes from one life to another only while both serve.

    Otherwise a slot could leave a server that lost data before its verdict.

    Args:
        registry: the registry.
        serving: the life that serves each slot now, as far as known.

    Returns:
        The registry with it.
    """
    live = serving.found

    def decide_slot(before: str, now: str) -> str:
        return now if now and (not before or before in live) and registry.accepts(now) else before

    return replace(registry, lives=combine(decide_slot, registry.lives, serving))


def timeline_of(forks: SlotMap, slot: int) -> Timeline:
    """Return the timeline of a slot's data, as scripts compare it.

    Args:
        forks: number of each slot's last fork.
        slot: the slot.
    """
    fork = forks.at(slot)
    # Channels of a version without timelines have lost nothing that this version noticed, unless the slot has forked.
    return Timeline(f"c.{fork or 0}", "" if fork else "-")


def _concerned(registry: Registry, joining: Joining, pending: Pending) -> SlotMap:
    """The slots whose data the life has, also those that were moved away before the verdict."""
    of_parents = combine(lambda life: "1" if life in pending.parents else "", registry.lives)
    return combine(_either, joining.slots, pending.slots, of_parents)


def _accept(registry: Registry, joining: Joining, pending: Pending) -> Registry:
    slots = _concerned(registry, joining, pending) if registry.version else joining.slots
    lives = combine(lambda before, concerned: joining.life if concerned else before, registry.lives, slots)
    waiting = {life: one for life, one in registry.pending.items() if life != joining.life}
    return replace(registry, lives=lives, pending=waiting)


def _fork(registry: Registry, joining: Joining, pending: Pending, now: int, *, everything: bool) -> Registry:
    slots = ALL_SLOTS if everything else _concerned(registry, joining, pending)
    number = str(max(now, *(int(fork or 0) + 1 for fork in registry.forks.values)))
    forks = combine(lambda before, concerned: number if concerned else before, registry.forks, slots)
    return replace(_accept(registry, joining, pending), forks=forks)


def _either(*values: str) -> str:
    return next((value for value in values if value), "")


def _later(one: str, other: str) -> str:
    return max(one, other, key=lambda fork: int(fork or 0))
