"""The Lua verbs of letters as typed functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

from eventbus.backends.dead_letters import DeathReason
from eventbus.backends.pending import PendingBatch, RedeliveryResult, Sweep
from eventbus.backends.redis.connections.resp import Command
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.backends.redis.scripts.script import Argument, Call, channel_script, options, pending_options, script
from eventbus.protocol.cursor import Position
from eventbus.protocol.records import read_record
from eventbus.settings import BusSettings

__all__ = [
    "INDEX_GRACE_MS",
    "ack",
    "ack_upto",
    "dead_letter",
    "fetch",
    "noted",
    "purge",
    "redeliver",
    "requeue",
    "reschedule_sweep",
    "sweep",
]

R = TypeVar("R")

# Longer than any publication is on its way: see noted.
INDEX_GRACE_MS = 10_000


def _alone(
    verb: str,
    settings: BusSettings,
    keys: Keys,
    channel: str,
    args: Sequence[Argument],
    decode: Callable[[Any], R],
    *more_keys: str,
) -> Call[R]:
    """A verb that leaves the channel itself untouched."""
    names = (*keys.channel(channel), *keys.pending(channel), *more_keys)
    return Call(
        script("pending/_standalone", "pending/_pending", f"pending/{verb}"),
        names,
        (*pending_options(settings, channel), *args),
        decode,
    )


def _with_channel(
    verb: str, settings: BusSettings, keys: Keys, channel: str, args: Sequence[Argument], decode: Callable[[Any], R]
) -> Call[R]:
    """A verb that may append to the channel."""
    names = (*keys.channel(channel), *keys.pending(channel))
    all_options = (*options(keys, channel, settings.channel_ttl(channel)), *pending_options(settings, channel))
    return Call(channel_script(settings, "pending/_pending", f"pending/{verb}"), names, (*all_options, *args), decode)


def fetch(settings: BusSettings, keys: Keys, channel: str, limit_bytes: int) -> Call[PendingBatch]:
    """``fetch.lua``: what a user is owed, about ``limit_bytes`` of it at most."""
    return _with_channel("fetch", settings, keys, channel, (limit_bytes,), _decode_batch)


def _decode_batch(reply: Any) -> PendingBatch:
    epoch, end, more, *records = cast("list[Any]", reply)
    parsed = [read_record(record) for record in records]
    return PendingBatch(Position(epoch.decode(), int(end)), parsed, bool(more))


def ack(settings: BusSettings, keys: Keys, channel: str, ids: Sequence[str]) -> Call[list[str]]:
    """``ack.lua`` by id: which of them were pending."""
    return _alone("ack", settings, keys, channel, ("ids", *ids), _decode_ids)


def ack_upto(settings: BusSettings, keys: Keys, channel: str, position: Position) -> Call[list[str]]:
    """``ack.lua`` by position: which were pending up to there."""
    return _alone("ack", settings, keys, channel, ("upto", position.epoch, position.offset), _decode_ids)


def _decode_ids(reply: Any) -> list[str]:
    return [id_.decode() for id_ in cast("list[bytes]", reply)]


def redeliver(settings: BusSettings, keys: Keys, channel: str, ids: Sequence[str]) -> Call[RedeliveryResult]:
    """``redeliver.lua``: send once more what is due."""
    sharded = 0
    return _alone("redeliver", settings, keys, channel, (keys.live(channel), sharded, *ids), _decode_due)


def _decode_due(reply: Any) -> RedeliveryResult:
    dead_lettered, *due = cast("list[Any]", reply)
    return RedeliveryResult([int(moment) for moment in due], dead_lettered)


def sweep(settings: BusSettings, keys: Keys, channel: str, fence: int) -> Call[Sweep]:
    """``sweep.lua``: one channel, by the holder of the lease with this fence."""
    return _alone("sweep", settings, keys, channel, (fence,), _decode_sweep, keys.swept(channel))


def _decode_sweep(reply: Any) -> Sweep:
    fenced, *numbers = (int(number) for number in cast("list[Any]", reply))
    return Sweep(bool(fenced), *numbers)


def reschedule_sweep(settings: BusSettings, keys: Keys, channel: str, claim: int, swept: Sweep) -> Call[int]:
    """``reschedule_sweep.lua``: what a sweep found, into the index and the totals."""
    life = math.ceil(settings.dead_ttl.total_seconds() * 1.125)
    found = (swept.next_check, swept.pending_change, swept.dead_change, swept.oldest_dead)
    return Call(
        script("pending/reschedule_sweep"), (keys.index, keys.totals, keys.oldest), (channel, claim, *found, life), int
    )


def noted(settings: BusSettings, keys: Keys, channels: Iterable[str], now_ms: int) -> Sequence[Command]:
    """The channels whose lists will have changed, into the index: before they have, so that a sweep will find them.

    With a moment's grace: a sweep between this and the change would find nothing, and forget the channel. In one
    write: who dies between two leaves a key that lives for ever.
    """
    life = math.ceil(settings.dead_ttl.total_seconds() * 1.125)
    soon = now_ms + INDEX_GRACE_MS
    return [*(("ZADD", keys.index, "LT", soon, channel) for channel in channels), ("EXPIRE", keys.index, life)]


def dead_letter(
    settings: BusSettings, keys: Keys, channel: str, id_: str, reason: DeathReason, content: bytes
) -> Call[bool]:
    """``dead_letter.lua``: what cannot be delivered at all; False if it was there already."""
    return _alone("dead_letter", settings, keys, channel, (id_, reason, content), bool)


def requeue(settings: BusSettings, keys: Keys, channel: str, ids: Sequence[str]) -> Call[list[int]]:
    """``requeue.lua``: the new offset of each; 0: not among the dead, -1: nothing that could be sent."""
    return _with_channel("requeue", settings, keys, channel, ids, _decode_offsets)


def _decode_offsets(reply: Any) -> list[int]:
    return [int(offset) for offset in cast("list[Any]", reply)[2:]]


def purge(settings: BusSettings, keys: Keys, channel: str, ids: Sequence[str]) -> Call[int]:
    """``purge.lua``: how many went."""
    return _alone("purge", settings, keys, channel, ids, int)
