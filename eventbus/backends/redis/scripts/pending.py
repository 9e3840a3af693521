"""The Lua scripts of pending events and dead letters as typed functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar, cast

from eventbus.backends.dead_letters import DeathReason
from eventbus.backends.pending import PendingBatch, RedeliveryResult, Sweep
from eventbus.backends.redis.connections.resp import Command
from eventbus.backends.redis.scripts.constants import with_slack
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.backends.redis.scripts.script import (
    ENTRIES,
    PENDING,
    Argument,
    Call,
    channel_script,
    options,
    pending_options,
    script,
)
from eventbus.protocol.cursor import Position
from eventbus.protocol.formats import FORMAT
from eventbus.protocol.records import read_record
from eventbus.settings import BusSettings

__all__ = [
    "INDEX_GRACE_MS",
    "ack",
    "ack_upto",
    "dead_letter",
    "fetch",
    "index_channels",
    "list_dead",
    "purge",
    "redeliver",
    "requeue",
    "reschedule_sweep",
    "sweep",
]

R = TypeVar("R")

INDEX_GRACE_MS: Final = 10_000
"""Milliseconds before a sweep of a channel that a publisher put into the index. No publication
takes longer.
"""


def _standalone(
    verb: str,
    settings: BusSettings,
    keys: Keys,
    channel: str,
    args: Sequence[Argument],
    decode: Callable[[Any], R],
    *more_keys: str,
) -> Call[R]:
    """Call a verb that does not change the channel itself."""
    names = (*keys.channel(channel), *keys.pending(channel), *more_keys)
    pieces = (*(ENTRIES if verb == "ack" else PENDING), *(("lists/_acknowledge",) if verb.startswith("ack") else ()))
    return Call(
        script("pending/_standalone", *pieces, f"pending/{verb}"),
        names,
        (*pending_options(settings, channel), *args),
        decode,
    )


def _with_channel(
    verb: str,
    settings: BusSettings,
    keys: Keys,
    channel: str,
    args: Sequence[Argument],
    decode: Callable[[Any], R],
    format_: int = FORMAT,
) -> Call[R]:
    """Call a verb that may append to the channel."""
    names = (*keys.channel(channel), *keys.pending(channel))
    all_options = (*options(keys, channel, settings.channel_ttl(channel)), *pending_options(settings, channel))
    script_ = channel_script(settings, *PENDING, f"pending/{verb}", format_=format_)
    return Call(script_, names, (*all_options, *args), decode)


def fetch(settings: BusSettings, keys: Keys, channel: str, limit_bytes: int) -> Call[PendingBatch]:
    """Call ``fetch.lua``: read a user's pending events.

    Args:
        settings: limits and lifetimes.
        keys: names of the keys.
        channel: the user's channel.
        limit_bytes: the answer ends after the record that exceeds this size.

    Returns:
        The call.
    """
    return _with_channel("fetch", settings, keys, channel, (limit_bytes,), _decode_batch)


def _decode_batch(reply: Any) -> PendingBatch:
    epoch, end, more, *records = cast("list[Any]", reply)
    parsed = [read_record(record) for record in records]
    return PendingBatch(Position(epoch.decode(), int(end)), parsed, bool(more))


def ack(settings: BusSettings, keys: Keys, channel: str, ids: Sequence[str]) -> Call[list[str]]:
    """Call ``ack.lua``: acknowledge events by id.

    Args:
        settings: limits and lifetimes.
        keys: names of the keys.
        channel: the user's channel.
        ids: ids of the acknowledged events.

    Returns:
        The call. Its result has the ids that were pending.
    """
    return _standalone("ack", settings, keys, channel, ids, _decode_ids)


def ack_upto(settings: BusSettings, keys: Keys, channel: str, position: Position) -> Call[list[str]]:
    """Call ``ack_upto.lua``: acknowledge all events up to a position.

    Args:
        settings: limits and lifetimes.
        keys: names of the keys.
        channel: the user's channel.
        position: the last acknowledged position.

    Returns:
        The call. Its result has the ids that were pending up to there.
    """
    return _standalone("ack_upto", settings, keys, channel, (position.epoch, position.offset), _decode_ids)


def _decode_ids(reply: Any) -> list[str]:
    return [id_.decode() for id_ in cast("list[bytes]", reply)]


def redeliver(settings: BusSettings, keys: Keys, channel: str, ids: Sequence[str]) -> Call[RedeliveryResult]:
    """Call ``redeliver.lua``: publish the events that are due again.

    Args:
        settings: limits and lifetimes.
        keys: names of the keys.
        channel: the user's channel.
        ids: ids of events to check.

    Returns:
        The call.
    """
    sharded = 0
    return _standalone("redeliver", settings, keys, channel, (keys.live(channel), sharded, *ids), _decode_due)


def _decode_due(reply: Any) -> RedeliveryResult:
    dead_lettered, *due = cast("list[Any]", reply)
    return RedeliveryResult([int(moment) for moment in due], dead_lettered)


def sweep(settings: BusSettings, keys: Keys, channel: str, token: int) -> Call[Sweep]:
    """Call ``sweep.lua`` for one channel.

    Args:
        settings: limits and lifetimes.
        keys: names of the keys.
        channel: the channel to sweep.
        token: fencing token of the sweeper's lease.

    Returns:
        The call.
    """
    return _standalone("sweep", settings, keys, channel, (token,), _decode_sweep, keys.swept(channel))


def _decode_sweep(reply: Any) -> Sweep:
    fenced, *numbers = (int(number) for number in cast("list[Any]", reply))
    return Sweep(bool(fenced), *numbers)


def reschedule_sweep(settings: BusSettings, keys: Keys, channel: str, claim: int, swept: Sweep) -> Call[int]:
    """Call ``reschedule_sweep.lua``: write a sweep's results into the index and the totals.

    Args:
        settings: lifetimes.
        keys: names of the keys.
        channel: the swept channel.
        claim: score with which the sweeper claimed the channel.
        swept: result of the sweep.

    Returns:
        The call.
    """
    life = with_slack(settings.dead_ttl.total_seconds())
    found = (swept.next_sweep, swept.pending_change, swept.dead_change, swept.oldest_dead)
    return Call(
        script("pending/reschedule_sweep"), (keys.index, keys.totals, keys.oldest), (channel, claim, *found, life), int
    )


def index_channels(settings: BusSettings, keys: Keys, channels: Iterable[str], now_ms: int) -> Sequence[Command]:
    """Make the commands that put channels into the sweeper's index. Send them before the change of
    the lists.

    The grace keeps a sweep from coming between this and the change: it would find nothing and drop
    the channel. Send the commands in one write: a process that dies between them would leave a key
    that lives forever.

    Args:
        settings: lifetimes.
        keys: names of the keys.
        channels: channels whose lists will change.
        now_ms: milliseconds since 1970.

    Returns:
        The commands.
    """
    life = with_slack(settings.dead_ttl.total_seconds())
    soon = now_ms + INDEX_GRACE_MS
    return [*(("ZADD", keys.index, "LT", soon, channel) for channel in channels), ("EXPIRE", keys.index, life)]


def dead_letter(
    settings: BusSettings, keys: Keys, channel: str, id_: str, reason: DeathReason, content: bytes
) -> Call[bool]:
    """Call ``dead_letter.lua``: keep an undeliverable event.

    Args:
        settings: limits and lifetimes.
        keys: names of the keys.
        channel: the event's channel.
        id_: the event's id, or one made from the bytes.
        reason: why it cannot be delivered.
        content: the record, or the bytes that could be read.

    Returns:
        The call. Its result is False if the dead letter exists already.
    """
    return _standalone("dead_letter", settings, keys, channel, (id_, reason, content), bool)


def requeue(
    settings: BusSettings, keys: Keys, channel: str, ids: Sequence[str], format_: int = FORMAT
) -> Call[list[int]]:
    """Call ``requeue.lua``: publish dead letters again.

    Args:
        settings: limits and lifetimes.
        keys: names of the keys.
        channel: the channel of the dead letters.
        ids: their ids.
        format_: the format to write.

    Returns:
        The call. Its result has the new offset of each; 0: not a dead letter, -1: no valid event.
    """
    return _with_channel("requeue", settings, keys, channel, ids, _decode_offsets, format_)


def _decode_offsets(reply: Any) -> list[int]:
    return [int(offset) for offset in cast("list[Any]", reply)[2:]]


def purge(settings: BusSettings, keys: Keys, channel: str, ids: Sequence[str]) -> Call[int]:
    """Call ``purge.lua``: remove dead letters.

    Args:
        settings: limits and lifetimes.
        keys: names of the keys.
        channel: the channel of the dead letters.
        ids: their ids.

    Returns:
        The call. Its result is the number of removed dead letters.
    """
    return _standalone("purge", settings, keys, channel, ids, int)


def list_dead(
    settings: BusSettings, keys: Keys, channel: str, first: int, places: int
) -> Call[tuple[int, list[tuple[str, bytes]]]]:
    """Call ``list_dead.lua``: read a part of the dead letters, the longest dead first.

    Args:
        settings: limits and lifetimes.
        keys: names of the keys.
        channel: the channel of the dead letters.
        first: place of the first one; the list begins with 0.
        places: number of places to read.

    Returns:
        The call. Its result is the number of places that were read, and the ids and entries there.
    """
    return _standalone("list_dead", settings, keys, channel, (first, places), _decode_dead)


def _decode_dead(reply: Any) -> tuple[int, list[tuple[str, bytes]]]:
    places, *found = cast("list[Any]", reply)
    return places, [(id_.decode(), entry) for id_, entry in zip(found[::2], found[1::2], strict=True)]
