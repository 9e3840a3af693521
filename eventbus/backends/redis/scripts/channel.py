"""The Lua scripts of channels as typed functions: publish events, read a history, fork."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import cast

from eventbus.backends.ports import Published, Write
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.backends.redis.scripts.script import (
    PENDING,
    Call,
    Reply,
    channel_script,
    fresh_epoch,
    options,
    pending_options,
    script,
)
from eventbus.protocol.cursor import Position
from eventbus.protocol.formats import FORMAT
from eventbus.protocol.history import History, LogEntry, Page
from eventbus.protocol.records import read_record
from eventbus.settings import BusSettings

__all__ = ["fork", "publish", "read"]


def publish(
    settings: BusSettings,
    keys: Keys,
    write: Write,
    epoch: str | None = None,
    format_: int = FORMAT,
    ahead_ms: int = 0,
) -> Call[Published]:
    """Call ``publish.lua``: publish the events of one channel.

    Args:
        settings: limits and lifetimes.
        keys: names of the keys.
        write: the events.
        epoch: a fresh epoch; the default makes one.
        format_: the format to write.
        ahead_ms: milliseconds by which the server's clock is ahead.

    Returns:
        The call.
    """
    life = settings.channel_ttl(write.channel)
    args = options(keys, write.channel, life, epoch)
    names: tuple[str, ...] = keys.channel(write.channel)
    verbs: tuple[str, ...] = ("channel/publish",)
    if write.needs_ack:
        args += pending_options(settings, write.channel)
        names += keys.pending(write.channel)
        verbs = (*PENDING, "channel/publish")
    for emission in write.emissions:
        args += (emission.receipt.id, emission.header_on(ahead_ms), emission.tail)
        if emission.lifetime.key_ttl_s > life:
            life = emission.lifetime.key_ttl_s
            args[2] = math.ceil(life)
    decode = _decode_one if len(write.emissions) == 1 else partial(_decode_publish, count=len(write.emissions))
    return Call(channel_script(settings, *verbs, format_=format_), names, args, decode)


def _decode_publish(reply: Reply, count: int) -> Published:
    epoch, last, receivers, pruned, *known = cast("bytes", reply).split()
    end = int(last)
    # The script sends offsets only if it knew an id. Otherwise the events have the last offsets.
    offsets = list(map(int, known)) if known else list(range(end - count + 1, end + 1))
    return Published(Position(epoch.decode(), end), offsets, int(receivers), int(pruned))


def _decode_one(reply: Reply) -> Published:
    return _decode_publish(reply, 1)


def fork(keys: Keys, channel: str, epoch: str) -> Call[bool]:
    """Call ``fork.lua``: end an epoch whose data went back in time.

    Args:
        keys: names of the keys.
        channel: the channel, such as ``user:42``.
        epoch: the epoch to end.

    Returns:
        The call. Its result is False if the channel has another epoch already.
    """
    return Call(script("channel/fork"), keys.channel(channel)[:1], (epoch, fresh_epoch()), bool)


def read(keys: Keys, channel: str, after: int | None, page: Page | None = None) -> Call[History]:
    """Call ``read.lua``: read a channel's log, snapshot and position.

    Args:
        keys: names of the keys.
        channel: the channel, such as ``user:42``.
        after: return log entries above this offset; None: no log entries.
        page: limits of the log part; None: all entries.

    Returns:
        The call.
    """
    state, log, snapshot, _ = keys.channel(channel)
    limits = (0, 0) if page is None else (page.entries, page.bytes)
    names = (state, log, snapshot, keys.pending(channel)[0])
    args = (fresh_epoch(), -1 if after is None else after, *limits)
    return Call(script("channel/_timeline", "channel/read"), names, args, _decode_read)


def _decode_read(reply: Reply) -> History:
    epoch, offset, logged, log, snapshot, more, has_pending, format_, parent, fork_, kept, lossy = cast(
        "tuple[bytes, bytes, bytes, list[bytes], list[bytes], int, int, bytes, bytes, bytes, bytes, bytes]",
        tuple(reply),
    )
    here = Position(epoch.decode(), int(offset))
    empty = History(
        here,
        int(logged),
        (),
        (),
        has_pending=bool(has_pending),
        format=int(format_),
        kept=Position(parent.decode(), int(fork_)) if kept == b"1" else None,
        lossy=lossy == b"1",
    )
    if int(format_) > FORMAT:
        # The position keeps its form in every format. The rest may mean something else by now.
        return empty
    entries = [_log_entry(*log[i : i + 3]) for i in range(0, len(log), 3)]
    states = [read_record(record) for record in snapshot]
    states.sort(key=lambda record: record.offset)
    return replace(empty, log=entries, snapshot=states, more=bool(more))


def _log_entry(id_: bytes, previous: bytes, record: bytes) -> LogEntry:
    offset = int(id_.partition(b"-")[0])
    # An entry that names no previous one follows the offset before it: readers then report a gap,
    # not a silent hole.
    before = int(previous) if previous.isdigit() else offset - 1
    return LogEntry(before, read_record(record, offset))
