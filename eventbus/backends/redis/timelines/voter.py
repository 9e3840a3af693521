"""Knowledge of one process about the data of a cluster: timelines of all slots, and what it wrote last at each shard.

This module sends nothing. Its methods are generators: each yields commands and receives the replies, so a thread and
an event loop use the same steps.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Final

from eventbus.backends.redis.cluster.topology import Topology, slot_of
from eventbus.backends.redis.connections.errors import OUTDATED, no_permission
from eventbus.backends.redis.connections.resp import Command
from eventbus.backends.redis.connections.voter import REST, Heard
from eventbus.backends.redis.scripts import timeline_registry
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.backends.redis.scripts.timeline import KEPT, RENEWAL
from eventbus.backends.redis.timelines.evidence import (
    ROLE,
    Answers,
    Asked,
    Exchange,
    Statements,
    Written,
    all_of,
    compare,
    life_of,
    lives_elsewhere,
    prove_newest,
    replies_of,
    slot_of_tag,
)
from eventbus.backends.redis.timelines.marks import ENDED, Marked, Marks
from eventbus.backends.redis.timelines.registry import (
    Ballot,
    Joining,
    Registry,
    claim,
    decide,
    lose,
    timeline_of,
)
from eventbus.backends.redis.timelines.slot_map import SlotMap
from eventbus.errors import Unavailable
from eventbus.protocol.cursor import Position
from eventbus.protocol.timeline import UNKNOWN, Timeline
from eventbus.redis_url import Endpoint
from eventbus.settings import BusSettings

__all__ = ["ShardVoter"]

log = logging.getLogger(__name__)

_VIEW: Final[Command] = ("CLUSTER", "SLOTS")
_CONFLICTS: Final = 8  # times that one step writes the registry again, since another process was faster
_OUTDATED: Final = re.compile(rf"{OUTDATED} c\.(\d+)")


class ShardVoter:
    """The evidence of one process at all shards.

    Args:
        settings: names the patience, and how long channels live.
        keys: names of the keys.
        active: whether other processes wait for the statement of this one.
        clock: seconds of a monotonic clock.

    Attributes:
        heard: for a process that receives publications.
        outdated: whether the registry has to be read again before the next use of a channel.
    """

    def __init__(
        self, settings: BusSettings, keys: Keys, *, active: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._keys = keys
        self._marks = Marks(keys)
        self._registry_slot = slot_of(keys.timeline[0])
        self.active = active
        self.heard: Heard | None = None
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._process = f"{self._pid}-{secrets.token_hex(6)}"
        self._known = self._seen = Registry()
        self._joined: dict[Endpoint, tuple[object, str]] = {}  # greeting and life; no life: it may not be asked for
        self._written: dict[str, Written] = {}
        self.outdated = False

    # --- what is known -----------------------------------------------------------------------------------------

    def timeline(self, node: Endpoint, slot: int) -> Timeline:
        """Return the timeline of a slot at a node that this process has joined.

        Args:
            node: the node.
            slot: the slot.
        """
        _, life = self._joined.get(node, (None, ""))
        return timeline_of(self._known.forks, slot) if life else UNKNOWN

    def has_joined(self, node: Endpoint, greeting: object) -> bool:
        """Return whether the timelines of a node's data are known.

        Args:
            node: the node.
            greeting: identifies the present connection.
        """
        return self._pid == os.getpid() and self._joined.get(node, (None, ""))[0] is greeting

    def renewal_due(self, node: Endpoint) -> bool:
        """Return whether the mark at a node has to be renewed before the next write.

        Args:
            node: the node.
        """
        life = self._life(node)
        written = self._written.get(life)
        fresh = written is not None and not written.ballot.idle and self._clock() - written.renewed <= RENEWAL
        return self.active and bool(life) and not fresh

    def note_write(self, node: Endpoint | None, channel: str, position: Position) -> None:
        """Note a write that a node has acknowledged.

        Args:
            node: the node.
            channel: the channel.
            position: its end after the write.
        """
        written = None if node is None else self._written.get(self._life(node))
        if written is not None:
            written.last = (channel, position, self._known.forks.at(slot_of_tag(channel)))
            written.wrote = self._clock()

    def refused(self, slot: int, error: Exception) -> None:
        """Take the timeline that a script named when it refused the present one.

        Args:
            slot: the slot of the channel.
            error: the error of the script.
        """
        found = _OUTDATED.search(str(error))
        if found is not None:
            self._known = self._known.remembered(Registry(forks=SlotMap.single(slot, found[1])))
        self.outdated = True

    @property
    def rest_in(self) -> float | None:
        """Seconds until this process should say that it is idle at a shard; None: it has at all."""
        busy = [one.used for one in self._written.values() if not one.ballot.idle]
        return max(0.0, min(busy) + REST - self._clock()) if busy else None

    def rest(self) -> list[int]:
        """Return slots of shards at which this process has written nothing for a while.

        A mark at each of them has to be renewed now, by ``renew`` with ``idle``.
        """
        due = [one for one in self._written.values() if not one.ballot.idle and one.used + REST <= self._clock()]
        lives = {life for _, life in self._joined.values()}
        for one in due:
            if one.ballot.life not in lives:
                one.ballot = replace(one.ballot, idle=True)  # another server has taken over; it is asked this once
        return [slot_of_tag(one.ballot.tag) for one in due]

    def joined_among(self, nodes: Sequence[Endpoint]) -> list[Endpoint]:
        """Return the nodes that this process has joined.

        Args:
            nodes: the nodes that matter.
        """
        return [node for node in nodes if self._life(node)]

    def changed(self) -> bool:
        """Return whether a slot has another timeline, or another life its data, since the last call."""
        before, self._seen = self._seen, self._known
        return (before.lives, before.forks) != (self._known.lives, self._known.forks)

    @property
    def nodes(self) -> list[Endpoint]:
        """The nodes that this process has joined and marked."""
        return [node for node, (_, life) in self._joined.items() if life in self._written]

    # --- steps -------------------------------------------------------------------------------------------------

    def join(self, node: Endpoint, greeting: object) -> Exchange:
        """Learn the timelines of a node's data on a new connection.

        Args:
            node: the node.
            greeting: identifies the present connection.

        Returns:
            False while the verdict is pending: no channel of the node may be used yet.

        Raises:
            Unavailable: the node is no master, or the registry does not answer.
        """
        if self._pid != os.getpid():
            self._begin()  # the evidence belongs to the parent process
        answer = (yield {node: (ROLE, _VIEW)})[node]
        problem = next((reply for reply in replies_of(answer) if isinstance(reply, Exception)), None)
        if problem is not None:
            if not no_permission(problem):
                raise problem
            log.warning(
                "cannot ask node %s for its replication id, so a rollback may stay unnoticed: %s", node, problem
            )
            self._joined[node] = (greeting, "")
            return True
        info, view = replies_of(answer)
        life = life_of(info)
        if life is None:
            raise Unavailable(f"node {node} is a replica", code="READONLY")
        others = Topology.read(view, node)
        slots = SlotMap.of("1" if owner == node else "" for owner in others.owners)
        joining = Joining(life, slots, frozenset(), bool(slots.at(self._registry_slot)))
        written = self._earlier(node, life, others) if self.active else []
        found = yield from compare(node, joining.slots, written, self._keys, self._settings, self._clock())
        known = self._known.accepts(life) and not found.gone
        done = known or (yield from self._settle(node, joining, found, others))
        if done:
            self._joined[node] = (greeting, life)
            self._written = {one: written for one, written in self._written.items() if one not in found.checked}
        return done

    def renew(
        self, nodes: Sequence[Endpoint], topology: Topology, *, idle: bool = False, ended: bool = False
    ) -> Exchange:
        """Renew the marks at nodes, and read the registry.

        Args:
            nodes: nodes that this process has joined.
            topology: who has which slot.
            idle: this process writes nothing there until the next call.
            ended: this process has ended.

        Returns:
            Whether the registry has been read.

        Raises:
            Unavailable: the only node did not answer, so this process must not write there.
        """
        masters = topology.masters
        self._joined = {node: joined for node, joined in self._joined.items() if node in masters}
        heard = None if self.heard is None else self.heard()
        process = ENDED if ended else self._process
        marked = (yield from self._mark(nodes, topology, process)) if self.active else {}
        ballots = [Ballot(process, one.life, one.at, idle, one.tag) for one in marked.values()]
        for ballot in ballots:
            fork = self._known.forks.at(slot_of_tag(ballot.tag))
            self._written[ballot.life] = Written(ballot, fork, self._clock(), implied=heard)
        commands = [timeline_registry.enter(self._keys, ballots)] if ballots else []
        if ended and ballots:
            commands.append(timeline_registry.remove(self._keys, self._process, [one.life for one in ballots]))
        serving = SlotMap.of(self._life(node) if node in marked else "" for node in topology.owners)
        for _ in range(_CONFLICTS):
            answer = (yield {None: [*commands, timeline_registry.look_up(self._keys, voters=False)]})[None]
            if isinstance(answer, Exception) or isinstance(answer[-1], Exception):
                log.info("cannot read the registry of timelines: %s", answer)
                return False
            registry, _, _ = timeline_registry.decode_look_up(answer[-1])
            after = claim(registry.remembered(self._known), serving)
            if (yield from self._write(registry, after)):
                self.outdated = False
                return True
        return False

    # --- inside ------------------------------------------------------------------------------------------------

    def _earlier(self, node: Endpoint, life: str, others: Topology) -> list[Written]:
        """Return what this process wrote in earlier lives whose data the node may have."""
        heard = None if self.heard is None else self.heard()
        live = {life} | {life for one, (_, life) in self._joined.items() if one != node and one in others.masters}
        found = []
        for one in (one for one in self._written.values() if one.ballot.life not in live):
            is_new = heard is not None and heard != one.implied and others.owner(slot_of_tag(heard[0])) == node
            last = (*heard, self._known.forks.at(slot_of_tag(heard[0]))) if heard is not None and is_new else one.last
            found.append(replace(one, last=last))
        return found

    def _settle(self, node: Endpoint, joining: Joining, found: Statements, others: Topology) -> Exchange:
        """Reach a verdict with the other processes."""
        mine = [replace(self._written[life].ballot, intact_in=joining.life) for life in found.intact]
        stated = [timeline_registry.enter(self._keys, mine)] if mine else []
        renewal, patience = (int(1000 * seconds) for seconds in (RENEWAL, self._settings.timeline_patience))
        for _ in range(_CONFLICTS):
            reply = (yield {None: [*stated, timeline_registry.look_up(self._keys, voters=True)]})[None]
            registry, now, ballots = timeline_registry.decode_look_up(all_of(reply)[-1])
            here = registry.remembered(self._known)
            accepted = here.accepts(joining.life)
            if not accepted:
                joining = replace(joining, live=(yield from lives_elsewhere(node, others)))
                ballots = yield from prove_newest(node, joining, here, ballots, self._keys)
            verdict, after = decide(here, joining, ballots, renewal, patience, now)
            # Another process may have forked the slots for the same reason.
            if any(_number(here.forks.at(slot)) <= _number(fork) for slot, fork in found.gone):
                verdict, after = "forked", lose(here, joining, now)
            over = [one for one in ballots if not after.asks(one) or one.at < now - 1000 * KEPT.total_seconds()]
            if (yield from self._write(registry, after, over)):
                if verdict == "forked" and registry.version:
                    log.warning("node %s of the cluster lost data; its channels begin new epochs", node)
                return verdict != "pending"
        raise Unavailable("other processes write the registry of timelines; try again later")

    def _mark(
        self, nodes: Sequence[Endpoint], topology: Topology, process: str
    ) -> Generator[Asked, Answers, dict[Endpoint, Marked]]:
        """Write marks at nodes with a known life."""
        joined = self.joined_among(nodes)
        former = {node: self._written[self._life(node)].ballot for node in joined if self._life(node) in self._written}
        marked = yield from self._marks.write(joined, topology, process, former)
        for node, one in marked.items():
            if one.error is None and one.life != self._life(node):
                # It was promoted without a new connection.
                del self._joined[node]
                marked[node] = replace(one, error=Unavailable(f"node {node} has another life; its data are checked"))
        failed = [one.error for one in marked.values() if one.error is not None]
        if failed and len(nodes) == 1:
            raise failed[0]
        return {node: one for node, one in marked.items() if one.error is None}

    def _life(self, node: Endpoint) -> str:
        return self._joined.get(node, (None, ""))[1]

    def _write(self, former: Registry, after: Registry, ended: Sequence[Ballot] = ()) -> Exchange:
        """Write the registry if it differs. Return False if another process was faster."""
        if after != former or ended:
            after = replace(after, version=max(former.version, after.version) + 1)
            command = timeline_registry.replace(self._keys, former.version, after, ended)
            (written,) = all_of((yield {None: [command]})[None])
            if not written:
                return False
        self._known = after.remembered(self._known)  # another step may have read a newer one
        return True


def _number(fork: str) -> int:
    return int(fork or 0)
