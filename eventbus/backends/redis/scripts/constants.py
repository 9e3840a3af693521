"""Values that Lua and Python share. Python defines them; the scripts get them as constants before
each piece.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

from eventbus.backends.instances import INSTANCES_LIMIT
from eventbus.backends.pending import ACKED_LIMIT, LONGEST_PAUSE_MS, TOMBSTONES_SPARED
from eventbus.flow.priority_queue import WEIGHTS
from eventbus.operations.changes import EVENT_POLICIES
from eventbus.operations.state import AWAIT_MS, DONE, ENDED, PARTS_MISSING, SILENCE
from eventbus.protocol.policy import LANES

__all__ = ["CONSTANTS", "SLACK", "with_slack"]

SLACK: Final = 1.125
"""Keys live this much longer than required, so that most writes need no EXPIRE."""


def with_slack(seconds: float) -> int:
    """Lengthen a key's lifetime by the slack.

    Args:
        seconds: the required lifetime.

    Returns:
        Whole seconds, rounded up, for EXPIRE.
    """
    return math.ceil(seconds * SLACK)


def _table(entries: Mapping[str, str]) -> str:
    return "{ " + ", ".join(f"[{name!r}] = {value}" for name, value in entries.items()) + " }"


def _set(names: Iterable[str]) -> str:
    return _table(dict.fromkeys(sorted(names), "true"))


# The first two fields of each event's routing header: the lane's initial and how the event is kept.
_POLICIES: Final = {name: f"'{policy.lane[0]} {policy.keep}'" for name, policy in EVENT_POLICIES.items()}

CONSTANTS: Final[Mapping[str, str]] = {
    "channel/_channel": f"local SLACK = {SLACK}",
    "pending/_standalone": f"local SLACK = {SLACK}",
    "instances/list": f"local INSTANCES_LIMIT = {INSTANCES_LIMIT}",
    "instances/renew": f"local INSTANCES_LIMIT = {INSTANCES_LIMIT}",
    "lists/_entries": f"local ACKED_LIMIT = {ACKED_LIMIT}",
    "pending/_pending": (
        f"local LONGEST_PAUSE, TOMBSTONES_SPARED = {LONGEST_PAUSE_MS}, {TOMBSTONES_SPARED}\n"
        f"local LANES = {_table({lane[0]: str(number) for number, lane in enumerate(LANES)})}\n"
        f"local SORTED_SETS = {{ [0] = {', '.join(repr(f':{lane}') for lane in LANES)} }}"
    ),
    "pending/fetch": f"local WEIGHTS = {{ {', '.join(map(str, WEIGHTS))} }}",
    "operations/_operation": (
        f"local POLICY_OF = {_table(_POLICIES)}\nlocal DONE, ENDED = {_set(DONE)}, {_set(ENDED)}\n"
        f"local SILENCE, AWAIT_MS, PARTS_MISSING = {SILENCE!r}, {AWAIT_MS}, {PARTS_MISSING!r}"
    ),
}
"""Lua file -> the declarations that come before it in a script."""
