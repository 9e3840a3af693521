"""Groups neighbouring requests of one operation into one call of ``record.lua``.

A short task sends two events and two transitions alternately. Each call of a script costs Redis
more than the work that it then does for one of them. A task that begins and ends within one call
needs no lease.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, cast

from eventbus.backends.ports import Published, RecordTransitions, Request
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.backends.redis.scripts.operations import decode_counts, record_transitions
from eventbus.backends.redis.scripts.script import Call
from eventbus.operations.state import TaskTransition
from eventbus.protocol.cursor import Position
from eventbus.protocol.formats import FORMAT
from eventbus.settings import BusSettings

__all__ = ["Run", "lease_of", "operation_of", "record", "runs", "transitions_of"]

Run = list[Request]

# Entries of one run. More events cost less through publish.lua, which adds all ids to the window
# with one command.
_MOST: Final = 16

_CHECKED: Final = frozenset({"plan", "started", "joined"})
_OVER: Final = frozenset({"released", "done", "joined", "ignored", "failed", "revoked"})


def runs(requests: Sequence[Request]) -> list[Run]:
    """Group requests that one call can carry out.

    Args:
        requests: in the order in which Redis must carry them out.

    Returns:
        The requests in the same order. A run of several requests has at least one transition, all
        of one operation.
    """
    found: list[Run] = []
    operation, entries = "", 0
    for request in requests:
        size = _size(request)
        last = found[-1] if found else None
        named = request.operation if isinstance(request, RecordTransitions) else ""
        if (
            last is not None
            and last[-1].channel == request.channel
            and type(last[-1]) is not type(request)
            and (not operation or not named or operation == named)
            and entries + size <= _MOST
        ):
            last.append(request)
            operation, entries = operation or named, entries + size
        else:
            found.append([request])
            operation, entries = named, size
    return found


def _size(request: Request) -> int:
    """Count entries. Events that need an acknowledgement fill a run, since ``record.lua`` cannot
    add pending events.
    """
    if isinstance(request, RecordTransitions):
        return len(request.transitions)
    return _MOST if request.needs_ack else len(request.emissions)


def operation_of(run: Run) -> str:
    """Return the operation of a run's transitions; empty if it has none.

    Args:
        run: a run that ``runs`` made.
    """
    return next((request.operation for request in run if isinstance(request, RecordTransitions)), "")


def transitions_of(run: Run) -> list[TaskTransition]:
    """Return a run's transitions, without the data that only tasks need which run on.

    Args:
        run: a run that ``runs`` made.

    Returns:
        The transitions in order. If a task also ends in the run, its ``started`` has no lease and
        no JSON.
    """
    transitions = [one for request in run if isinstance(request, RecordTransitions) for one in request.transitions]
    return _without_ended(transitions) if len(transitions) > 1 else transitions


def lease_of(transitions: Sequence[TaskTransition]) -> int:
    """Return the time to the first check of the transitions' operation in milliseconds; 0: no
    check.

    Args:
        transitions: the transitions of a run.
    """
    leases = (transition.lease for transition in transitions if transition.kind in _CHECKED and transition.lease)
    return min(leases, default=0)


def record(
    settings: BusSettings,
    keys: Keys,
    run: Run,
    transitions: Sequence[TaskTransition],
    epoch: str,
    format_: int = FORMAT,
    ahead_ms: int = 0,
) -> Call[list[Published]]:
    """Call ``record.lua`` for a run.

    Args:
        settings: limits and lifetimes.
        keys: names of the keys.
        run: transitions of one operation, and events of its channel.
        transitions: the result of ``transitions_of`` for this run.
        epoch: a fresh epoch.
        format_: the format to write.
        ahead_ms: milliseconds by which the server's clock is ahead.

    Returns:
        The call. Its result has one entry for each request.
    """
    last = next(request for request in reversed(run) if isinstance(request, RecordTransitions))
    remaining = iter(transitions)
    items: list[TaskTransition | tuple[str, str, bytes]] = []
    life = settings.channel_ttl(last.channel)
    for request in run:
        if isinstance(request, RecordTransitions):
            items += [next(remaining) for _ in request.transitions]
        else:
            items += [(one.receipt.id, one.header_on(ahead_ms), one.tail) for one in request.emissions]
            life = max(life, *(one.lifetime.key_ttl_s for one in request.emissions))

    def decode(reply: Any) -> list[Published]:
        epoch_, end, receivers, pruned, _, _, _, _, _, *places = cast("list[Any]", reply)
        offsets, found = iter(places), []
        for request in run:
            here = Position(epoch_.decode(), int(end))
            if isinstance(request, RecordTransitions):
                found.append(Published(here, (), receivers, pruned, decode_counts(reply)))
            else:
                found.append(Published(here, [next(offsets) for _ in request.emissions], receivers, pruned))
        return found

    return record_transitions(settings, keys, last, items, life, epoch, decode, format_)


def _without_ended(transitions: Sequence[TaskTransition]) -> list[TaskTransition]:
    ended: set[str] = set()
    waiting: set[str] = set()  # the next try of a released task needs the JSON
    found = []
    for transition in reversed(transitions):
        if transition.kind in {"published", "started"} and transition.task in ended:
            released = transition.task in waiting
            found.append(replace(transition, lease=0, task_json=transition.task_json if released else ""))
            continue
        if transition.kind in _OVER:
            ended.add(transition.task)
            (waiting.add if transition.kind == "released" else waiting.discard)(transition.task)
        found.append(transition)
    found.reverse()
    return found
