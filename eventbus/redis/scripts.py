"""The Lua verbs as typed functions: each builds a ``Call``; an edge runs it, blocking or not, and decodes the answer.

Redis' ARGV are strings, whatever one passes; bools and ints are encoded here and nowhere else.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Generic, TypeVar, cast

from eventbus.cursor import Position
from eventbus.history import History, LogEntry, Page
from eventbus.redis.keys import Keys
from eventbus.redis.resp import Command
from eventbus.settings import BusSettings
from eventbus.transport import Published, Write
from eventbus.wire import read_record

__all__ = ["Call", "Script", "letter_options", "options", "publish", "read", "script"]

R = TypeVar("R")

# A plain path: importlib.resources imports more when it is first used, which is in a thread. A pool that forks at that
# moment hands half a module down, and the child can never send anything.
_LUA: Final = Path(__file__).parent / "lua"

# What a reply of redis-py may be; it is taken apart by the decoders below and goes no further.
Reply = Any


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua source and its SHA1, by which EVALSHA names it."""

    source: str
    sha: str


@dataclass(frozen=True, slots=True)
class Call(Generic[R]):
    """One script call: ready to be sent, and how to read what comes back."""

    script: Script
    keys: Sequence[str]
    args: Sequence[str | bytes | int]
    decode: Callable[[Reply], R]

    @property
    def command(self) -> Command:
        """The EVALSHA command."""
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)


@cache
def script(*files: str) -> Script:
    """Load a script from its files in ``lua/``, put together in this order."""
    source = "\n".join((_LUA / f"{name}.lua").read_text(encoding="utf-8") for name in files)
    return Script(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


def options(settings: BusSettings, keys: Keys, channel: str, life: float) -> list[str | bytes | int]:
    """ARGV[1..7] of channel.lua."""
    sharded = 0
    return [
        keys.live(channel),
        # Another epoch for every call: a channel that is born anew must never get a name that it had.
        os.urandom(8).hex(),
        settings.log_limit,
        settings.snapshot_limit,
        settings.dedup_window,
        sharded,
        math.ceil(life),
    ]


def publish(settings: BusSettings, keys: Keys, write: Write) -> Call[Published]:
    """``publish.lua``: the events of one channel."""
    life = max(settings.channel_ttl(write.channel), *(emission.ttl for emission in write.emissions), 0.0)
    args = options(settings, keys, write.channel, life)
    if write.owing:
        return _publish_owed(settings, keys, write, args)
    for emission in write.emissions:
        args += (emission.id, emission.keep, emission.key or "", emission.header, emission.tail)
    return Call(script("channel", "publish"), keys.channel(write.channel), args, _decode_publish)


def _publish_owed(settings: BusSettings, keys: Keys, write: Write, args: list[str | bytes | int]) -> Call[Published]:
    args += letter_options(settings, write.channel)
    for emission in write.emissions:
        keep = "ack" if emission.owed else emission.keep
        key = f"{emission.lane} {emission.owed}" if emission.owed else emission.key or ""
        args += (emission.id, keep, key, emission.header, emission.tail)
    names = (*keys.channel(write.channel), *keys.letters(write.channel))
    return Call(script("channel", "letters", "publish"), names, args, _decode_publish)


def letter_options(settings: BusSettings, channel: str) -> tuple[int, ...]:
    """What ``letters.lua`` reads of ARGV."""
    return (
        settings.pending_limit,
        int(settings.ack_timeout * 1000),
        settings.ack_attempts,
        settings.dead_limit,
        math.ceil(settings.dead_ttl.total_seconds()),
        math.ceil(settings.channel_ttl(channel)),
    )


def _decode_publish(reply: Reply) -> Published:
    epoch, end, receivers, pruned, *offsets = cast("list[Any]", reply)
    return Published(Position(epoch.decode(), int(end)), offsets, receivers, pruned)


def read(keys: Keys, channel: str, after: int | None, page: Page | None = None) -> Call[History]:
    """``read.lua``: log above ``after`` (None: none; a page of it, where one is named), snapshot and position."""
    state, log, snapshot, _ = keys.channel(channel)
    limits = (0, 0) if page is None else (page.entries, page.bytes)
    names = (state, log, snapshot, keys.letters(channel)[0])
    return Call(script("read"), names, (-1 if after is None else after, *limits), _decode_read)


def _decode_read(reply: Reply) -> History:
    epoch, offset, logged, log, snapshot, more, owed = cast(
        "tuple[bytes, bytes, bytes, list[bytes], list[bytes], int, int]", tuple(reply)
    )
    entries = [_log_entry(*log[i : i + 3]) for i in range(0, len(log), 3)]
    states = [read_record(record) for record in snapshot]
    states.sort(key=lambda record: record.offset)
    here = Position(epoch.decode(), int(offset))
    return History(here, int(logged), entries, states, more=bool(more), owed=bool(owed))


def _log_entry(id_: bytes, previous: bytes, record: bytes) -> LogEntry:
    offset = int(id_.partition(b"-")[0])
    # One that does not say what was before it is taken to follow the one before: a gap rather than a silent hole.
    before = int(previous) if previous.isdigit() else offset - 1
    return LogEntry(before, read_record(record, offset))
