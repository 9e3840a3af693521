"""The Lua verbs of operations as typed functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from eventbus.backends.ports import RecordTransitions
from eventbus.backends.redis.connections.resp import Command
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.backends.redis.scripts.script import Argument, Call, channel_script, options, script
from eventbus.operations.changes import EventStamp
from eventbus.operations.state import ENDED, Counts, OperationState, TaskTransition
from eventbus.operations.store import OperationInfo, read_info
from eventbus.settings import BusSettings

__all__ = [
    "LeaseExpiry",
    "cancel",
    "cancelled_of",
    "cancelled_since",
    "decode_counts",
    "describe",
    "expire_leases",
    "index_lives",
    "list_operations",
    "record_transitions",
    "renew",
    "reschedule_check",
    "tell_cancelled",
]

R = TypeVar("R")

_GONE = "WorkerLost: the worker that ran this task is gone"
_LAPSED_AT_ONCE = 100
_IDLE_MS = 300_000


@dataclass(frozen=True, slots=True)
class LeaseExpiry:
    """What a look at the leases found.

    Attributes:
        counts: of the operation afterwards; None: there is none.
        next_check: when to look again (milliseconds since 1970; 0: nothing of it runs).
        expired: tasks that have been taken for lost, or have failed, since their lease had lapsed.
        lost: whether the operation is lost by it.
    """

    counts: Counts | None
    next_check: int
    expired: int = 0
    lost: bool = False


def _call_options(
    settings: BusSettings, keys: Keys, channel: str, operation: str, stamp: EventStamp, epoch: str | None = None
) -> list[Argument]:
    args = options(keys, channel, settings.channel_ttl(channel), epoch)
    topic = f"{channel}:operation:{operation}"
    args += (stamp.id, stamp.emitted, topic, operation, stamp.label, settings.operations_limit)
    return args


def _names(keys: Keys, channel: str, operation: str) -> tuple[str, ...]:
    return (*keys.channel(channel), *keys.operation(channel, operation), keys.operations(channel))


def record_transitions(
    settings: BusSettings,
    keys: Keys,
    request: RecordTransitions,
    items: Sequence[TaskTransition | tuple[str, str, bytes]],
    life: float,
    epoch: str,
    decode: Callable[[Any], R],
) -> Call[R]:
    """``record.lua``: marks of the operation of ``request``, and events (id, header, tail). ``epoch``: a fresh one."""
    args = _call_options(settings, keys, request.channel, request.operation, request.stamp, epoch)
    args[2] = math.ceil(life)
    for item in items:
        if isinstance(item, TaskTransition):
            args += (
                item.kind,
                item.task,
                item.planned,
                int(item.internal),
                item.lease,
                int(item.acks_late),
                item.task_json,
            )
        else:
            args += ("event", *item)
    names = _names(keys, request.channel, request.operation)
    return Call(channel_script(settings, "operations/_operation", "operations/record"), names, args, decode)


def cancel(settings: BusSettings, keys: Keys, channel: str, operation: str, stamp: EventStamp) -> Call[Counts | None]:
    """``cancel.lua``: the counts afterwards; None: there is no such operation."""
    args = _call_options(settings, keys, channel, operation, stamp)
    names = _names(keys, channel, operation)
    return Call(channel_script(settings, "operations/_operation", "operations/cancel"), names, args, decode_counts)


def expire_leases(
    settings: BusSettings, keys: Keys, channel: str, operation: str, stamp: EventStamp
) -> Call[LeaseExpiry]:
    """``expire_leases.lua``: look at the leases of one operation."""
    args = _call_options(settings, keys, channel, operation, stamp)
    args += (int(settings.lost_patience.total_seconds() * 1000), _LAPSED_AT_ONCE, _GONE)
    return Call(
        channel_script(settings, "operations/_operation", "operations/expire_leases"),
        _names(keys, channel, operation),
        args,
        _decode_expiry,
    )


def decode_counts(reply: Any) -> Counts | None:
    """Of the answer of a verb of operations; None: there is no such operation."""
    _, _, _, _, state, done, failed, total, *_ = cast("list[Any]", reply)
    return Counts(cast("OperationState", state.decode()), done, failed, total) if state else None


def _decode_expiry(reply: Any) -> LeaseExpiry:
    *_, look_at, taken, lost = cast("list[Any]", reply)
    return LeaseExpiry(decode_counts(reply), int(float(look_at)), taken, lost == 1)


def reschedule_check(keys: Keys, member: str, claim: int, found: LeaseExpiry, now_ms: int) -> Call[int]:
    """``reschedule_check.lua``: when to look at an operation's leases again, into the index.

    One of which nothing runs stays there until it has ended: another start may have been noted between claim and look,
    without having begun by then.
    """
    over = found.counts is None or found.counts.state in ENDED
    again = 0 if over else found.next_check or now_ms + _IDLE_MS
    return Call(script("operations/reschedule_check"), (keys.leases,), (member, claim, again), int)


def describe(settings: BusSettings, keys: Keys, channel: str, operation: str) -> Call[OperationInfo | None]:
    """``describe.lua``: one operation and what runs of it; None: there is none."""

    def decode(reply: Any) -> OperationInfo | None:
        fields, running = cast("tuple[list[bytes], list[bytes]]", tuple(reply))
        return read_info(channel, operation, _mapping(fields), _mapping(running))

    names = keys.operation(channel, operation)
    return Call(script("operations/describe"), names, (settings.running_shown,), decode)


def list_operations(
    keys: Keys, channel: str, limit: int, states: Sequence[OperationState] = ()
) -> Call[list[OperationInfo]]:
    """``list.lua``: those of a channel, the newest first; in one of the states, where some are named."""

    def decode(reply: Any) -> list[OperationInfo]:
        found = cast("list[Any]", reply)
        infos = (read_info(channel, found[i].decode(), _mapping(found[i + 1]), {}) for i in range(0, len(found), 2))
        return [info for info in infos if info is not None]

    stem = keys.operation(channel, "")[0]
    return Call(script("operations/list"), (keys.operations(channel),), (stem, limit, *states), decode)


def _mapping(pairs: Sequence[bytes]) -> dict[str, str]:
    return {pairs[i].decode(): pairs[i + 1].decode() for i in range(0, len(pairs), 2)}


def tell_cancelled(settings: BusSettings, keys: Keys, channel: str, operation: str, now_ms: int) -> list[Command]:
    """Commands that tell workers, those that start later too, that an operation is to stop."""
    life = settings.cancelled_ttl.total_seconds()
    return [
        ("ZADD", keys.cancelled, now_ms, f"{channel} {operation}"),
        ("ZREMRANGEBYSCORE", keys.cancelled, "-inf", int(now_ms - life * 1000)),
        ("ZREMRANGEBYRANK", keys.cancelled, 0, -1 - settings.cancelled_limit),
        ("EXPIRE", keys.cancelled, math.ceil(life)),
    ]


def cancelled_since(keys: Keys, moment_ms: int) -> Command:
    """Command that asks which operations were to stop from a moment on: ``channel operation`` and score in turn."""
    return ("ZRANGEBYSCORE", keys.cancelled, moment_ms, "+inf", "WITHSCORES")


def cancelled_of(keys: Keys, members: Sequence[tuple[str, str]]) -> Command:
    """Command that asks of operations (channel and id) when each was to stop; nothing for one that nobody stopped."""
    return ("ZMSCORE", keys.cancelled, *(f"{channel} {operation}" for channel, operation in members))


def renew(keys: Keys, channel: str, operation: str, tasks: Sequence[str], until_ms: int, life: int) -> list[Command]:
    """Commands that renew leases, and let the operation's keys live for ``life`` seconds more, however long the task
    says nothing. The last one's answer is what the leaves are.
    """
    counts, states, leases = keys.operation(channel, operation)
    scores = [part for task in tasks for part in (until_ms, task)]
    every = (counts, states, leases, keys.operations(channel))
    return [
        ("ZADD", leases, "XX", "GT", *scores),
        *(("EXPIRE", name, life) for name in every),
        ("HMGET", states, *tasks),
    ]


def index_lives(settings: BusSettings, keys: Keys) -> Command:
    """Command that lets the index of leases live while something runs."""
    return ("EXPIRE", keys.leases, math.ceil(settings.lost_patience.total_seconds() * 1.125) + 86_400)
