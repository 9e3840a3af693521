"""Loads the Lua scripts and describes a call of one.

The functions of this package build a ``Call``. A connection, blocking or asyncio, sends it and
decodes the reply. Redis takes only strings as arguments, so this package also encodes booleans and
numbers.
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
from eventbus.backends.redis.scripts.constants import CONSTANTS
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.process_state import renew_in_child
from eventbus.protocol.formats import FIRST_NAMED, FORMAT
from eventbus.protocol.timeline import UNKNOWN, Timeline
from eventbus.settings import BusSettings

__all__ = [
    "ENTRIES",
    "PENDING",
    "Argument",
    "Call",
    "Reply",
    "Script",
    "channel_script",
    "fresh_epoch",
    "options",
    "pending_options",
    "script",
]

R = TypeVar("R")
S = TypeVar("S")
Argument = str | bytes | int

ENTRIES: Final = ("lists/_lists", "lists/_entries")
"""The pieces of a verb that only removes pending events, after ``_standalone.lua``."""

PENDING: Final = (*ENTRIES, "pending/_pending")
"""The pieces of the other verbs of pending events, after ``_channel.lua`` or ``_standalone.lua``."""

# A plain path: importlib.resources imports more modules at its first use, which is in a thread. If
# a pool forks at that moment, the child inherits half a module and can never send anything.
_LUA: Final = Path(__file__).parents[1] / "lua"

# Any reply of redis-py. The decoders take it apart; it goes no further.
Reply = Any


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script.

    Attributes:
        source: the Lua source.
        sha: its SHA1, by which EVALSHA names it.
        has_timeline: whether it compares the channel's timeline with that of the connection.
    """

    source: str
    sha: str
    has_timeline: bool = False


@dataclass(slots=True)
class Call(Generic[R]):
    """One call of a script: the command to send and the decoder of its reply.

    It is not frozen, because a frozen dataclass takes four times as long to create.

    Attributes:
        script: the script to run.
        keys: ``KEYS`` of the script; all of them are in one slot.
        args: ``ARGV`` of the script.
        decode: turns the reply into the result.
    """

    script: Script
    keys: Sequence[str]
    args: Sequence[Argument]
    decode: Callable[[Reply], R]

    @property
    def command(self) -> Command:
        """The EVALSHA command for a server whose timeline is unknown."""
        return self.command_on(UNKNOWN)

    def command_on(self, timeline: Timeline) -> Command:
        """Return the EVALSHA command for a connection.

        Args:
            timeline: the timeline of the server's data, as the connection learned it.
        """
        keys, args = self.keys, self.args
        if not self.script.has_timeline:
            return ("EVALSHA", self.script.sha, len(keys), *keys, *args)
        # ARGV[1] is the new epoch.
        return ("EVALSHA", self.script.sha, len(keys), *keys, args[0], *timeline, *args[1:])

    def then(self, change: Callable[[R], S]) -> Call[S]:
        """Make the same call with another result.

        Args:
            change: turns this call's result into the other one.

        Returns:
            A new call.
        """
        decode = self.decode
        return Call(self.script, self.keys, self.args, lambda reply: change(decode(reply)))


@cache
def script(*files: str, constants: str = "") -> Script:
    """Load a script.

    Args:
        files: its pieces in order, as paths below ``lua/`` without the suffix. Their constants come
            before them.
        constants: Lua declarations at the start of the script.

    Returns:
        The script; the same object for the same arguments.
    """
    pieces = [constants]
    for name in files:
        pieces += [CONSTANTS.get(name, ""), (_LUA / f"{name}.lua").read_text(encoding="utf-8")]
    source = "\n".join(pieces)
    digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    return Script(source, digest, has_timeline="channel/_timeline" in files)


def channel_script(settings: BusSettings, *verbs: str, format_: int = FORMAT) -> Script:
    """Load a script that begins with ``_channel.lua``. The channel's limits are constants in it:
    arguments cost more.

    Args:
        settings: names the limits.
        verbs: the pieces after ``_channel.lua``.
        format_: the format to write.

    Returns:
        The script.
    """
    return _channel_script(settings.log_limit, settings.snapshot_limit, settings.dedup_window, verbs, format_)


@cache
def _channel_script(log: int, snapshot: int, window: int, verbs: tuple[str, ...], format_: int) -> Script:
    sharded = False
    publish = "SPUBLISH" if sharded else "PUBLISH"
    limits = f"local LOG_LIMIT, SNAPSHOT_LIMIT, WINDOW, PUBLISH = {log}, {snapshot}, {window}, '{publish}'"
    first_line_end = f" {format_}\\n" if format_ >= FIRST_NAMED else "\\n"
    formats = f"local FORMAT, FIRST_LINE_END = {format_}, '{first_line_end}'"
    return script("channel/_timeline", "channel/_channel", *verbs, constants=f"{limits}\n{formats}")


class _Random:
    """The kernel's random bytes in blocks of eight. It reads many at a time: each read releases the
    interpreter lock.
    """

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Forget the blocks that are left. Otherwise parent and child would use the same ones after
        a fork.
        """
        self._unused: list[bytes] = []

    def eight_bytes(self) -> bytes:
        """Return a block that no thread has received before."""
        try:
            return self._unused.pop()
        except IndexError:
            some = os.urandom(8 * 256)
            self._unused.extend(some[i : i + 8] for i in range(8, len(some), 8))
            return some[:8]


_random = _Random()
renew_in_child(_random.renew)


def fresh_epoch() -> str:
    """Return an epoch for a channel that has none. Each round trip needs a new one."""
    return _random.eight_bytes().hex()


def options(keys: Keys, channel: str, life: float, epoch: str | None = None) -> list[Argument]:
    """Make the arguments that ``_channel.lua`` reads, without the timeline, which the connection knows.

    Args:
        keys: names of the keys.
        channel: the channel, such as ``user:42``.
        life: seconds that the channel lives from now.
        epoch: a fresh epoch; the default makes one.

    Returns:
        The arguments.
    """
    return [epoch or fresh_epoch(), keys.live(channel), math.ceil(life)]


def pending_options(settings: BusSettings, channel: str) -> tuple[int, ...]:
    """Make the arguments that ``_entries.lua`` reads.

    Args:
        settings: names the limits and lifetimes.
        channel: the channel, such as ``user:42``.

    Returns:
        The arguments.
    """
    return (
        settings.pending_limit,
        int(settings.ack_timeout * 1000),
        settings.ack_attempts,
        settings.dead_limit,
        math.ceil(settings.dead_ttl.total_seconds()),
        math.ceil(settings.channel_ttl(channel)),
    )
