"""The Lua scripts of a cluster's timelines as typed functions. They run rarely, so they are called by their source."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

from eventbus.backends.redis.connections.resp import Command
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.backends.redis.scripts.script import script
from eventbus.backends.redis.scripts.timeline import KEPT
from eventbus.backends.redis.timelines.registry import Ballot, Pending, Registry
from eventbus.backends.redis.timelines.slot_map import SlotMap

__all__ = ["decode_look_up", "enter", "look_up", "mark", "remove", "replace"]

_KEPT_S: Final = math.ceil(KEPT.total_seconds())


def look_up(keys: Keys, *, voters: bool) -> Command:
    """Read the registry.

    Args:
        keys: names of the keys.
        voters: whether to read the voters too.

    Returns:
        The command.
    """
    return ("EVAL", script("timeline/look_up").source, 2, *keys.timeline, int(voters))


def decode_look_up(reply: Any) -> tuple[Registry, int, list[Ballot]]:
    """Decode the reply to ``look_up``.

    Args:
        reply: the reply.

    Returns:
        The registry, the time there in ms, and the voters.
    """
    version, lives, forks, pending, now = (part.decode() for part in reply[:5])
    waiting = {
        life: Pending(since, frozenset(parents), SlotMap.read(slots))
        for life, (since, parents, slots) in json.loads(pending or "{}").items()
    }
    registry = Registry(int(version), SlotMap.read(lives), SlotMap.read(forks), waiting)
    voters = [part.decode() for part in reply[5]]
    return registry, int(now), [_ballot(voters[i], voters[i + 1]) for i in range(0, len(voters), 2)]


def _ballot(field: str, entry: str) -> Ballot:
    process, _, life = field.partition(" ")
    at, idle, tag, intact_in = entry.split(" ")
    return Ballot(process, life, int(at), idle == "1", tag, intact_in)


def replace(keys: Keys, former: int, registry: Registry, ended: Iterable[Ballot]) -> Command:
    """Write the registry, unless another process was faster. The reply is 1 if it was written.

    Args:
        keys: names of the keys.
        former: version of the registry that was read.
        registry: the new registry.
        ended: voters to remove.

    Returns:
        The command.
    """
    pending = {life: [one.since, sorted(one.parents), one.slots.text] for life, one in registry.pending.items()}
    document = (registry.version, registry.lives.text, registry.forks.text, json.dumps(pending))
    fields = (f"{one.process} {one.life}" for one in ended)
    return ("EVAL", script("timeline/replace").source, 2, *keys.timeline, former, *document, 30 * _KEPT_S, *fields)


def enter(keys: Keys, ballots: Sequence[Ballot]) -> Command:
    """Note what a process wrote last at each shard.

    Args:
        keys: names of the keys.
        ballots: the entries.

    Returns:
        The command.
    """
    entries: list[str | int] = []
    for one in ballots:
        entries += [f"{one.process} {one.life}", one.at, f"{int(one.idle)} {one.tag} {one.intact_in}"]
    return ("EVAL", script("timeline/enter").source, 1, keys.timeline[1], _KEPT_S, *entries)


def mark(key: str) -> Command:
    """Write a mark. The reply is the server's time in ms, and its life.

    Args:
        key: the mark's key.

    Returns:
        The command.
    """
    return ("EVAL", script("timeline/mark").source, 1, key, _KEPT_S)


def remove(keys: Keys, process: str, lives: Iterable[str]) -> Command:
    """Remove the entries of a process.

    Args:
        keys: names of the keys.
        process: the process.
        lives: the lives that the entries name; at least one.

    Returns:
        The command.
    """
    return ("HDEL", keys.timeline[1], *(f"{process} {life}" for life in lives))
