"""What a worker's outbox holds, events and marks, and how a batch of them becomes requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from eventbus.emission import Emission
from eventbus.policy import Keep
from eventbus.tally import Mark
from eventbus.transport import Advance, Request, Telling, Write

__all__ = ["Entry", "MarkEntry", "group"]


@dataclass(slots=True, eq=False)
class MarkEntry:
    """A mark on its way to Redis: it keeps its place among the events of its operation.

    ``words`` makes what is told of it; called in the outbox's thread, once for neighbouring marks.
    """

    channel: str
    topic: str
    operation: str
    mark: Mark
    words: Callable[[], Telling]
    lane: int = 1
    keep: Keep = "log"
    key: str | None = None
    expires: int = 0
    size: int = 400


Entry = Emission | MarkEntry

# Entries of one request: while Redis carries it out, about a millisecond for so many, nobody else is served.
_AT_ONCE = 256


def group(batch: Sequence[Entry]) -> tuple[list[Request], list[list[Entry]]]:
    """Requests, and the entries of each. Order is kept per channel, among events and among marks.

    An event may go ahead of marks, and never behind one: what ends an operation comes after all that it said. So a
    short task takes two requests and not four.
    """
    runs: dict[str, list[list[Entry]]] = {}
    for entry in batch:
        of_channel = runs.setdefault(entry.channel, [])
        run = _run_for(entry, of_channel)
        if run is None:
            run = []
            of_channel.append(run)
        run.append(entry)
    members = [run for of_channel in runs.values() for run in of_channel]
    return [_request(run) for run in members], members


def _run_for(entry: Entry, runs: Sequence[list[Entry]]) -> list[Entry] | None:
    """Which run an entry joins: an event the last one of events, a mark the last one if it is its operation's."""
    if isinstance(entry, Emission):
        run = next((run for run in reversed(runs) if isinstance(run[-1], Emission)), None)
    else:
        last = runs[-1][-1] if runs else None
        run = runs[-1] if isinstance(last, MarkEntry) and last.operation == entry.operation else None
    return None if run is None or len(run) == _AT_ONCE else run


def _request(run: Sequence[Entry]) -> Request:
    last = run[-1]
    if isinstance(last, MarkEntry):
        marks = [entry.mark for entry in run if isinstance(entry, MarkEntry)]
        return Advance(last.channel, last.operation, marks, last.words())
    return Write(last.channel, [entry for entry in run if isinstance(entry, Emission)])
