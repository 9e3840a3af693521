"""Neighbouring requests of one operation as one call of ``record.lua``.

A short task says two events and two marks, in turn. A script's call costs Redis more than what it then does for one of
them; and what begins and ends within one call needs no lease.
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
from eventbus.settings import BusSettings

__all__ = ["Run", "lease_of", "operation_of", "runs", "tell", "transitions_of"]

Run = list[Request]

# Entries of one run. More events are cheaper through publish.lua, which puts all ids into the window at once.
_MOST: Final = 16

_OVER: Final = frozenset({"released", "done", "joined", "ignored", "failed", "revoked"})


def runs(requests: Sequence[Request]) -> list[Run]:
    """Requests in order, those together that one call can carry out. Only a run of one has no mark, or is longer."""
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
    """Entries; of events that have to be acknowledged more than fit beside anything else."""
    if isinstance(request, RecordTransitions):
        return len(request.transitions)
    return _MOST if request.needs_ack else len(request.emissions)


def operation_of(run: Run) -> str:
    """Whose marks a run has; empty: it has none."""
    return next((request.operation for request in run if isinstance(request, RecordTransitions)), "")


def transitions_of(run: Run) -> list[TaskTransition]:
    """A run's marks: what a leaf that ends among them had begun with is without what is only for one that runs on."""
    transitions = [
        transition for request in run if isinstance(request, RecordTransitions) for transition in request.transitions
    ]
    return _brief(transitions) if len(transitions) > 1 else transitions


def lease_of(transitions: Sequence[TaskTransition]) -> int:
    """Milliseconds until something has to be looked at once all of them have been counted; 0: nothing has."""
    return min((transition.lease for transition in transitions if transition.lease), default=0)


def tell(
    settings: BusSettings, keys: Keys, run: Run, counted: Sequence[TaskTransition], epoch: str
) -> Call[list[Published]]:
    """``record.lua``: marks of one operation, as ``transitions_of`` has them, and events of its channel. ``epoch`` is a
    fresh one.
    """
    last = next(request for request in reversed(run) if isinstance(request, RecordTransitions))
    transitions = iter(counted)
    items: list[TaskTransition | tuple[str, str, bytes]] = []
    life = settings.channel_ttl(last.channel)
    for request in run:
        if isinstance(request, RecordTransitions):
            items += [next(transitions) for _ in request.transitions]
        else:
            items += [(one.receipt.id, one.header, one.tail) for one in request.emissions]
            life = max(life, *(one.ttl for one in request.emissions))

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

    return record_transitions(settings, keys, last, items, life, epoch, decode)


def _brief(transitions: Sequence[TaskTransition]) -> list[TaskTransition]:
    over: set[str] = set()
    found = []
    for transition in reversed(transitions):
        if transition.kind in _OVER:
            over.add(transition.task)
        elif transition.kind == "started" and transition.task in over:
            found.append(replace(transition, lease=0, task_json=""))
            continue
        found.append(transition)
    found.reverse()
    return found
