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
from typing import Any, Final, Generic, TypeVar

from eventbus.backends.redis.connections.resp import Command
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.settings import BusSettings

__all__ = ["Argument", "Call", "Script", "channel_script", "fresh_epoch", "options", "pending_options", "script"]

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


def pending_options(settings: BusSettings, channel: str) -> tuple[int, ...]:
    """What ``_pending.lua`` reads of ARGV."""
    return (
        settings.pending_limit,
        int(settings.ack_timeout * 1000),
        settings.ack_attempts,
        settings.dead_limit,
        math.ceil(settings.dead_ttl.total_seconds()),
        math.ceil(settings.channel_ttl(channel)),
    )
