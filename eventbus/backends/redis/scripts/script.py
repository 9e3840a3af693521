"""The Lua verbs as typed functions: each builds a ``Call``; an edge runs it, blocking or not, and decodes the answer.

Redis' ARGV are strings, whatever one passes; bools and ints are encoded here and nowhere else.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Final, Generic, TypeVar, cast

from eventbus.backends.ports import Published, Write
from eventbus.backends.redis.connections.resp import Command
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.protocol.cursor import Position
from eventbus.protocol.history import History, LogEntry, Page
from eventbus.protocol.records import read_record
from eventbus.settings import BusSettings

__all__ = [
    "Argument",
    "Call",
    "Script",
    "channel_script",
    "fresh_epoch",
    "letter_options",
    "options",
    "publish",
    "read",
    "script",
]

R = TypeVar("R")
S = TypeVar("S")
Argument = str | bytes | int

# A plain path: importlib.resources imports more when it is first used, which is in a thread. A pool that forks at that
# moment hands half a module down, and the child can never send anything.
_LUA: Final = Path(__file__).parents[1] / "lua"

# What a reply of redis-py may be; it is taken apart by the decoders below and goes no further.
Reply = Any


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua source and its SHA1, by which EVALSHA names it."""

    source: str
    sha: str


@dataclass(slots=True)
class Call(Generic[R]):
    """One script call: ready to be sent, and how to read what comes back.

    Not frozen: to make one would take four times as long.
    """

    script: Script
    keys: Sequence[str]
    args: Sequence[Argument]
    decode: Callable[[Reply], R]

    @property
    def command(self) -> Command:
        """The EVALSHA command."""
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)

    def then(self, change: Callable[[R], S]) -> Call[S]:
        """The same call; its answer, changed."""
        decode = self.decode
        return Call(self.script, self.keys, self.args, lambda reply: change(decode(reply)))


@cache
def script(*files: str, constants: str = "") -> Script:
    """Load a script from its files in ``lua/``, put together in this order, the constants before them."""
    source = "\n".join((constants, *((_LUA / f"{name}.lua").read_text(encoding="utf-8") for name in files)))
    return Script(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


def channel_script(settings: BusSettings, *verbs: str) -> Script:
    """A script that begins with ``_channel.lua``. The limits are a part of it, since each argument costs."""
    return _channel_script(settings.log_limit, settings.snapshot_limit, settings.dedup_window, verbs)


@cache
def _channel_script(log: int, snapshot: int, window: int, verbs: tuple[str, ...]) -> Script:
    sharded = False
    publish = "SPUBLISH" if sharded else "PUBLISH"
    limits = f"local LOG_LIMIT, SNAPSHOT_LIMIT, WINDOW, PUBLISH = {log}, {snapshot}, {window}, '{publish}'"
    return script("channel/_channel", *verbs, constants=limits)


class _Random:
    """The kernel's random bytes, eight by eight, asked for rarely: to ask gives the interpreter lock away."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Forget what is left: after a fork, parent and child would go on alike."""
        self._left: list[bytes] = []

    def eight_bytes(self) -> bytes:
        """Never twice the same ones, whichever thread asks."""
        try:
            return self._left.pop()
        except IndexError:
            some = os.urandom(8 * 256)
            self._left.extend(some[i : i + 8] for i in range(8, len(some), 8))
            return some[:8]


_random = _Random()
os.register_at_fork(after_in_child=_random.renew)


def fresh_epoch() -> str:
    """For a channel that is born: one that it never had. Another one for every round trip at least."""
    return _random.eight_bytes().hex()


def options(keys: Keys, channel: str, life: float, epoch: str | None = None) -> list[Argument]:
    """ARGV[1..3] of _channel.lua."""
    return [keys.live(channel), epoch or fresh_epoch(), math.ceil(life)]


def publish(settings: BusSettings, keys: Keys, write: Write, epoch: str | None = None) -> Call[Published]:
    """``publish.lua``: the events of one channel. ``epoch`` is a fresh one."""
    life = settings.channel_ttl(write.channel)
    args = options(keys, write.channel, life, epoch)
    names: tuple[str, ...] = keys.channel(write.channel)
    verbs: tuple[str, ...] = ("channel/publish",)
    if write.owing:
        args += letter_options(settings, write.channel)
        names += keys.letters(write.channel)
        verbs = ("pending/_pending", "channel/publish")
    for emission in write.emissions:
        args += (emission.receipt.id, emission.header, emission.tail)
        if emission.ttl > life:
            life = emission.ttl
            args[2] = math.ceil(life)
    decode = _decode_one if len(write.emissions) == 1 else partial(_decode_publish, count=len(write.emissions))
    return Call(channel_script(settings, *verbs), names, args, decode)


def letter_options(settings: BusSettings, channel: str) -> tuple[int, ...]:
    """What ``_pending.lua`` reads of ARGV."""
    return (
        settings.pending_limit,
        int(settings.ack_timeout * 1000),
        settings.ack_attempts,
        settings.dead_limit,
        math.ceil(settings.dead_ttl.total_seconds()),
        math.ceil(settings.channel_ttl(channel)),
    )


def _decode_publish(reply: Reply, count: int) -> Published:
    epoch, last, receivers, pruned, *known = cast("bytes", reply).split()
    end = int(last)
    # Said only where some id was known: else they are the last ones.
    offsets = list(map(int, known)) if known else list(range(end - count + 1, end + 1))
    return Published(Position(epoch.decode(), end), offsets, int(receivers), int(pruned))


def _decode_one(reply: Reply) -> Published:
    return _decode_publish(reply, 1)


def read(keys: Keys, channel: str, after: int | None, page: Page | None = None) -> Call[History]:
    """``read.lua``: log above ``after`` (None: none; a page of it, where one is named), snapshot and position."""
    state, log, snapshot, _ = keys.channel(channel)
    limits = (0, 0) if page is None else (page.entries, page.bytes)
    names = (state, log, snapshot, keys.letters(channel)[0])
    return Call(script("channel/read"), names, (-1 if after is None else after, *limits), _decode_read)


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
