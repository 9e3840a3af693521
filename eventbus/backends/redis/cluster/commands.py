"""Cuts a round trip into what each node carries out. Pure.

All calls of one slot stay together and in order. A node may answer one of them and send the next one away, while the
slot is being moved. So several calls of a slot are one transaction: the node takes all or none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis

from eventbus.backends.redis.cluster.topology import (
    Redirection,
    read_redirection,
    slot_of,
    slot_of_command,
)
from eventbus.backends.redis.connections.resp import Command
from eventbus.backends.redis.scripts.script import Call, Script
from eventbus.redis_url import Endpoint

__all__ = ["RoundTrip", "SlotGroup", "group_by_slot", "held_back"]

_LOST = "NOSCRIPT"


@dataclass(slots=True)
class RoundTrip:
    """The commands of one round trip, and their replies.

    Attributes:
        commands: the commands; those of calls have no timeline before their node is known.
        calls: the calls of the commands; empty if they are no calls.
        confirmed: in durable mode, calls fail unless the replicas of their node have what they wrote.
        replies: one reply for each command.
    """

    commands: Sequence[Command]
    calls: Sequence[Call[Any]] = ()
    confirmed: bool = False
    replies: list[Any] = field(default_factory=list)

    @classmethod
    def of(cls, calls: Sequence[Call[Any]], *, confirmed: bool) -> RoundTrip:
        """Make the round trip of calls.

        Args:
            calls: the calls.
            confirmed: see ``confirmed``.

        Returns:
            The round trip.
        """
        return cls([call.command for call in calls], calls, confirmed)

    def scripts_of(self, groups: Iterable[SlotGroup]) -> dict[str, Script]:
        """Return the scripts that commands need.

        Args:
            groups: the commands.
        """
        return {call.script.sha: call.script for group in groups for call in self._calls_of(group)}

    def uses_timelines(self, groups: Iterable[SlotGroup]) -> bool:
        """Return whether a command compares the channel's timeline.

        Args:
            groups: the commands.
        """
        return any(call.script.has_timeline for group in groups for call in self._calls_of(group))

    def answer(self, group: SlotGroup, found: Sequence[Any]) -> None:
        """Note the replies to a group.

        Args:
            group: the commands.
            found: their replies; one error stands for all.
        """
        for n, place in enumerate(group.places):
            self.replies[place] = found[n] if len(found) > 1 else found[0]

    def _calls_of(self, group: SlotGroup) -> list[Call[Any]]:
        return [self.calls[place] for place in group.places] if self.calls else []


@dataclass(slots=True)
class SlotGroup:
    """Commands of one slot, in order.

    Attributes:
        slot: the slot; None: any node can carry them out.
        places: places of the commands in the round trip.
        commands: the commands.
        asked: the node to ask instead of the slot's owner, while the slot is being moved.
    """

    slot: int | None
    places: list[int]
    commands: list[Command]
    asked: Endpoint | None = None

    @property
    def wire(self) -> list[Command]:
        """The commands to send."""
        asking: list[Command] = [] if self.asked is None else [("ASKING",)]
        if len(self.commands) == 1:
            return [*asking, *self.commands]
        return [*asking, ("MULTI",), *self.commands, ("EXEC",)]

    def read(self, replies: Sequence[Any]) -> list[Any]:
        """Take the replies to ``wire`` apart.

        Args:
            replies: the replies.

        Returns:
            One reply for each command.
        """
        if self.asked is not None:
            replies = replies[1:]
        if len(self.commands) == 1:
            return list(replies)
        queued, done = replies[1:-1], replies[-1]
        if isinstance(done, list) and len(done) == len(self.commands):
            return done
        refused = next((reply for reply in queued if isinstance(reply, redis.RedisError)), done)
        error = refused if isinstance(refused, redis.RedisError) else redis.ResponseError("EXECABORT no reply")
        return [error] * len(self.commands)

    def redirection(self, replies: Sequence[Any], node: Endpoint) -> Redirection | None:
        """Return where to send the whole group instead.

        Args:
            replies: one reply for each command.
            node: the node that answered.

        Returns:
            The redirection; None if the node carried out a command, or refused for another reason.
        """
        found = [
            read_redirection(str(reply), node) if isinstance(reply, redis.ResponseError) else None for reply in replies
        ]
        return found[0] if found and None not in found else None

    def without_script(self, replies: Sequence[Any]) -> SlotGroup | None:
        """Return the commands whose script the node does not have.

        Args:
            replies: one reply for each command.

        Returns:
            These commands, to send again; None if there are none.
        """
        lost = [n for n, one in enumerate(replies) if isinstance(one, redis.ResponseError) and _is_lost(one)]
        if not lost:
            return None
        return SlotGroup(self.slot, [self.places[n] for n in lost], [self.commands[n] for n in lost], self.asked)


def _is_lost(error: redis.ResponseError) -> bool:
    return str(error).startswith(_LOST)


def group_by_slot(commands: Sequence[Command]) -> list[SlotGroup]:
    """Put the commands of each slot together.

    Args:
        commands: the commands in order.

    Returns:
        The groups in the order of their first commands.
    """
    groups: dict[int | None, SlotGroup] = {}
    for place, command in enumerate(commands):
        slot = slot_of_command(command)
        group = groups.get(slot)
        if group is None:
            group = groups[slot] = SlotGroup(slot, [], [])
        group.places.append(place)
        group.commands.append(command)
    return list(groups.values())


def held_back(before: Sequence[Command], replies: Sequence[Any]) -> dict[int, Exception]:
    """Return the slots whose calls must not run, since a command before them failed.

    A channel must be in an index before the index has to name it. Members of the indices begin with the channel.

    Args:
        before: commands that ran before the calls.
        replies: their replies.

    Returns:
        Slot of the channel -> the error.
    """
    held: dict[int, Exception] = {}
    for command, reply in zip(before, replies, strict=True):
        if isinstance(reply, Exception) and command[0] == "ZADD":
            channel = str(command[-1]).partition(" ")[0]
            held[slot_of(f"{{{channel}}}")] = reply
    return held
