"""The Lua scripts of operations as typed functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar, cast

from eventbus.backends.ports import RecordTransitions
from eventbus.backends.redis.connections.resp import Command
from eventbus.backends.redis.scripts.constants import with_slack
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.backends.redis.scripts.script import Argument, Call, channel_script, options, script
from eventbus.operations.changes import EventStamp
from eventbus.operations.state import ENDED, TASK_UNREPORTED, WORKER_LOST, Counts, OperationState, TaskTransition
from eventbus.operations.store import LeaseExpiry, OperationInfo, read_info
from eventbus.protocol.formats import FORMAT
from eventbus.settings import BusSettings

__all__ = [
    "cancel",
    "cancelled_of",
    "cancelled_since",
    "decode_counts",
    "describe",
    "expire_lease_index",
    "expire_leases",
    "list_operations",
    "publish_cancelled",
    "record_transitions",
    "renew",
    "reschedule_check",
]

R = TypeVar("R")

_EXPIRED_PER_CALL: Final = 100
_IDLE_MS: Final = 300_000


def _call_options(
    settings: BusSettings, keys: Keys, channel: str, operation: str, stamp: EventStamp, epoch: str | None = None
) -> list[Argument]:
    args = options(keys, channel, settings.channel_ttl(channel), epoch)
    topic = f"{channel}:operation:{operation}"
    args += (stamp.id, stamp.emitted, topic, operation, stamp.label, settings.operations_limit)
    args.append(settings.part_patience_ms)
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
    format_: int = FORMAT,
) -> Call[R]:
    """Call ``record.lua``: count transitions of an operation, in order with events of its channel.

    Args:
        settings: limits and lifetimes.
        keys: names of the keys.
        request: names the operation and the stamp of its events.
        items: transitions, and events as id, header and tail.
        life: seconds that the channel lives from now.
        epoch: a fresh epoch.
        decode: decodes the reply.
        format_: the format to write.

    Returns:
        The call.
    """
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
    verbs = ("operations/_operation", "operations/record")
    return Call(channel_script(settings, *verbs, format_=format_), names, args, decode)


def cancel(
    settings: BusSettings, keys: Keys, channel: str, operation: str, stamp: EventStamp, format_: int = FORMAT
) -> Call[Counts | None]:
    """Call ``cancel.lua``: cancel an operation.

    Args:
        settings: limits and lifetimes.
        keys: names of the keys.
        channel: the user's channel.
        operation: the operation's id.
        stamp: id and time of the events.
        format_: the format to write.

    Returns:
        The call. Its result is None if the operation is unknown.
    """
    args = _call_options(settings, keys, channel, operation, stamp)
    names = _names(keys, channel, operation)
    script_ = channel_script(settings, "operations/_operation", "operations/cancel", format_=format_)
    return Call(script_, names, args, decode_counts)


def expire_leases(
    settings: BusSettings, keys: Keys, channel: str, operation: str, stamp: EventStamp, format_: int = FORMAT
) -> Call[LeaseExpiry]:
    """Call ``expire_leases.lua``: check the leases of one operation.

    Args:
        settings: limits and lifetimes; ``lost_patience`` is the time to wait for a lost task.
        keys: names of the keys.
        channel: the user's channel.
        operation: the operation's id.
        stamp: id and time of the events.
        format_: the format to write.

    Returns:
        The call.
    """
    args = _call_options(settings, keys, channel, operation, stamp)
    args += (int(settings.lost_patience.total_seconds() * 1000), _EXPIRED_PER_CALL)
    args += (WORKER_LOST, TASK_UNREPORTED)
    return Call(
        channel_script(settings, "operations/_operation", "operations/expire_leases", format_=format_),
        _names(keys, channel, operation),
        args,
        _decode_expiry,
    )


def decode_counts(reply: Any) -> Counts | None:
    """Decode the counts in the answer of ``_operation.lua``.

    Args:
        reply: the script's reply.

    Returns:
        The counts; None if the operation is unknown.
    """
    _, _, _, _, state, done, failed, total, *_ = cast("list[Any]", reply)
    return Counts(cast("OperationState", state.decode()), done, failed, total) if state else None


def _decode_expiry(reply: Any) -> LeaseExpiry:
    *_, next_check, expired, lost = cast("list[Any]", reply)
    return LeaseExpiry(decode_counts(reply), int(float(next_check)), expired, lost == 1)


def reschedule_check(keys: Keys, member: str, claim: int, found: LeaseExpiry, now_ms: int) -> Call[int]:
    """Call ``reschedule_check.lua``: set the time of the next check of an operation's leases.

    An operation without running tasks stays in the index until it has ended. A publisher may have
    put it there between claim and check, for a task that had not started by then.

    Args:
        keys: names of the keys.
        member: the operation, as ``channel operation``.
        claim: score with which the checker claimed it.
        found: result of the check.
        now_ms: milliseconds since 1970.

    Returns:
        The call.
    """
    over = found.counts is None or found.counts.state in ENDED
    again = 0 if over else found.next_check or now_ms + _IDLE_MS
    return Call(script("operations/reschedule_check"), (keys.leases,), (member, claim, again), int)


def describe(settings: BusSettings, keys: Keys, channel: str, operation: str) -> Call[OperationInfo | None]:
    """Call ``describe.lua``: read one operation and its running tasks.

    Args:
        settings: names the maximum number of tasks, ``running_shown``.
        keys: names of the keys.
        channel: the user's channel.
        operation: the operation's id.

    Returns:
        The call. Its result is None if the operation is unknown.
    """

    def decode(reply: Any) -> OperationInfo | None:
        fields, running = cast("tuple[list[bytes], list[bytes]]", tuple(reply))
        return read_info(channel, operation, _mapping(fields), _mapping(running))

    names = keys.operation(channel, operation)
    return Call(script("operations/describe"), names, (settings.running_shown,), decode)


def list_operations(
    keys: Keys, channel: str, limit: int, states: Sequence[OperationState] = ()
) -> Call[list[OperationInfo]]:
    """Call ``list.lua``: list the operations of a channel, the newest first.

    Args:
        keys: names of the keys.
        channel: the user's channel.
        limit: maximum number of operations.
        states: only operations in one of these states; empty: in any state.

    Returns:
        The call.
    """

    def decode(reply: Any) -> list[OperationInfo]:
        found = cast("list[Any]", reply)
        infos = (read_info(channel, found[i].decode(), _mapping(found[i + 1]), {}) for i in range(0, len(found), 2))
        return [info for info in infos if info is not None]

    stem = keys.operation(channel, "")[0]
    return Call(script("operations/list"), (keys.operations(channel),), (stem, limit, *states), decode)


def _mapping(pairs: Sequence[bytes]) -> dict[str, str]:
    return {pairs[i].decode(): pairs[i + 1].decode() for i in range(0, len(pairs), 2)}


def publish_cancelled(settings: BusSettings, keys: Keys, channel: str, operation: str, now_ms: int) -> list[Command]:
    """Make the commands that report a cancellation to all workers, also to those that start later.

    Args:
        settings: number and lifetime of the reports.
        keys: names of the keys.
        channel: the user's channel.
        operation: the operation's id.
        now_ms: milliseconds since 1970.

    Returns:
        The commands.
    """
    life = settings.cancelled_ttl.total_seconds()
    return [
        ("ZADD", keys.cancelled, now_ms, f"{channel} {operation}"),
        ("ZREMRANGEBYSCORE", keys.cancelled, "-inf", int(now_ms - life * 1000)),
        ("ZREMRANGEBYRANK", keys.cancelled, 0, -1 - settings.cancelled_limit),
        ("EXPIRE", keys.cancelled, math.ceil(life)),
    ]


def cancelled_since(keys: Keys, moment_ms: int) -> Command:
    """Make the command that lists operations cancelled since a time.

    Args:
        keys: names of the keys.
        moment_ms: milliseconds since 1970.

    Returns:
        The command. Its reply alternates ``channel operation`` and the time of the cancellation.
    """
    return ("ZRANGEBYSCORE", keys.cancelled, moment_ms, "+inf", "WITHSCORES")


def cancelled_of(keys: Keys, members: Sequence[tuple[str, str]]) -> Command:
    """Make the command that asks which operations were cancelled.

    Args:
        keys: names of the keys.
        members: channel and id of each operation.

    Returns:
        The command. Its reply has the time of each cancellation, or None.
    """
    return ("ZMSCORE", keys.cancelled, *(f"{channel} {operation}" for channel, operation in members))


def renew(
    keys: Keys, channel: str, operation: str, tasks: Sequence[str], lease_ms: int, life: int
) -> Call[list[bytes | None]]:
    """Call ``renew.lua``: renew leases, and keep the operation alive while a task runs without
    reports.

    Args:
        keys: names of the keys.
        channel: the user's channel.
        operation: the operation's id.
        tasks: keys of the running tasks.
        lease_ms: milliseconds until the new end of the leases.
        life: seconds that the operation's keys live from now, at least.

    Returns:
        The call. Its result has the state of each task; see ``_operation.lua``.
    """
    names = (*keys.operation(channel, operation), keys.operations(channel))
    return Call(script("operations/renew"), names, (lease_ms, life, *tasks), list)


def expire_lease_index(settings: BusSettings, keys: Keys) -> Command:
    """Make the command that keeps the index of leases alive until the last operation has ended.

    Args:
        settings: lifetimes.
        keys: names of the keys.

    Returns:
        The command.
    """
    longest = max(settings.lost_patience, settings.part_patience).total_seconds()
    return ("EXPIRE", keys.leases, with_slack(longest) + 86_400)
