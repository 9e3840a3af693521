"""The entries of an outbox, events and transitions of tasks, and how a batch of them becomes requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from eventbus.backends.ports import RecordTransitions, Request, Write
from eventbus.events.encoder import Emission
from eventbus.operations.changes import EventStamp
from eventbus.operations.state import TaskTransition
from eventbus.protocol.policy import Keep

__all__ = ["Entry", "TransitionEntry", "group"]


@dataclass(slots=True, eq=False)
class TransitionEntry:
    """A transition of a task on its way to Redis. It keeps its place among the events of its operation.

    Attributes:
        channel: of the operation's user.
        topic: of the operation.
        operation: id of the operation.
        transition: what happened to the task.
        stamp: makes id and time of the events that report it. Called in the outbox's thread, once for neighbours.
        lane: 1, normal.
        keep: ``log``.
        key: None.
        expires: 0, never.
        size: bytes that it takes while it waits, about.
    """

    channel: str
    topic: str
    operation: str
    transition: TaskTransition
    stamp: Callable[[], EventStamp]
    lane: int = 1
    keep: Keep = "log"
    key: str | None = None
    expires: int = 0
    size: int = 400


Entry = Emission | TransitionEntry

# Entries of one request. Redis serves no other client while it carries one out: about a millisecond for so many.
_REQUEST_ENTRIES = 256


def group(batch: Sequence[Entry]) -> tuple[list[Request], list[list[Entry]]]:
    """Group entries into requests. A channel keeps its order; entries of a channel are put together.

    Args:
        batch: entries in order.

    Returns:
        Requests, and the entries of each.
    """
    runs: dict[str, list[list[Entry]]] = {}
    for entry in batch:
        of_channel = runs.setdefault(entry.channel, [])
        if not of_channel or len(of_channel[-1]) == _REQUEST_ENTRIES or not _alike(of_channel[-1][-1], entry):
            of_channel.append([])
        of_channel[-1].append(entry)
    members = [run for of_channel in runs.values() for run in of_channel]
    return [_request(run) for run in members], members


def _alike(one: Entry, other: Entry) -> bool:
    """Whether two neighbours fit into one request."""
    if isinstance(one, TransitionEntry) and isinstance(other, TransitionEntry):
        return one.operation == other.operation
    return isinstance(one, Emission) and isinstance(other, Emission)


def _request(run: Sequence[Entry]) -> Request:
    last = run[-1]
    if isinstance(last, TransitionEntry):
        marks = [entry.transition for entry in run if isinstance(entry, TransitionEntry)]
        return RecordTransitions(last.channel, last.operation, marks, last.stamp())
    return Write(last.channel, [entry for entry in run if isinstance(entry, Emission)])
