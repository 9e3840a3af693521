"""The Lua script ``join.lua`` as typed functions: which timeline the data of a server belongs to."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any, Final, NamedTuple, cast

from eventbus.backends.redis.connections.resp import Command
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.backends.redis.scripts.script import script
from eventbus.protocol.timeline import Statement, Timeline, Verdict
from eventbus.settings import BusSettings

__all__ = ["KEPT", "RENEWAL", "Joined", "decode_join", "join"]

RENEWAL: Final = 2.0
"""Seconds after which a process that writes renews its entry among the voters."""

KEPT: Final = timedelta(days=1)
"""How long an entry of a process stays that did not end in order."""


class Joined(NamedTuple):
    """The answer of ``join.lua``.

    Attributes:
        verdict: whether the data continue the timeline before.
        timeline: the timeline of the data.
        now_ms: the server's time, milliseconds since 1970.
    """

    verdict: Verdict
    timeline: Timeline
    now_ms: int


def join(
    settings: BusSettings, keys: Keys, process: str, statement: Statement, about: str, *, idle: bool = False
) -> Command:
    """Call ``join.lua`` by its source: it runs rarely, and a new server has no script.

    Args:
        settings: names the patience.
        keys: names of the keys.
        process: name of this process; empty: it is no voter.
        statement: whether the last write of this process is still there.
        about: the timeline of that write; empty: there is none.
        idle: the process writes nothing until the next call.

    Returns:
        The command.
    """
    patience, renewal = (math.ceil(seconds * 1000) for seconds in (settings.timeline_patience, RENEWAL))
    args = (process, statement, about, patience, renewal, math.ceil(KEPT.total_seconds()), int(idle))
    return ("EVAL", script("timeline/join").source, 2, *keys.timeline, *args)


def decode_join(reply: Any) -> Joined:
    """Decode the reply of ``join.lua``.

    Args:
        reply: the reply.

    Returns:
        The answer.
    """
    verdict, name, ancestors, now = (part.decode() for part in cast("list[bytes]", reply))
    return Joined(cast("Verdict", verdict), Timeline(name, ancestors), int(now))
