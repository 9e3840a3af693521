"""The event of the benchmark: the same members and size for all contenders, 235 bytes of JSON by default."""

from __future__ import annotations

import os
import uuid
from typing import Any, Final

from bench.contenders.contract import DEFAULT_EVENT_BYTES, Emission

__all__ = ["EVENT_BYTES", "NAME", "OPERATION", "SIZE_VARIABLE", "TOPIC", "envelope", "padding", "user_name"]

SIZE_VARIABLE: Final = "BENCH_EVENT_BYTES"
EVENT_BYTES: Final = int(os.environ.get(SIZE_VARIABLE, DEFAULT_EVENT_BYTES))
NAME: Final = "bench.tick"
OPERATION: Final = "bench"
TOPIC: Final = "bench"  # of events to all users
_ID: Final = str(uuid.UUID("01934e7a-0000-7000-8000-000000000000"))
# The length of an event without topic, padding and the digits of offset and sequence number.
_FRAME: Final = len(
    '{"offset":,"id":"","type":"","topic":"","time":1790000000123,"data":{"seq":,"at":1790000000123456,"pad":""}}'
    + NAME
    + _ID
)
# The usual number of these digits: thousands of events to all users, dozens to each user.
_DIGITS_OF_ALL: Final = 7
_DIGITS_OF_ONE: Final = 4


def user_name(number: int) -> str:
    """Return the user of a connection. All names have the same length."""
    return f"u{number:05d}"


def _topic(user: str | None) -> str:
    return f"system:{TOPIC}" if user is None else f"user:{user}:operation:{OPERATION}"


def padding(user: str | None) -> str:
    """Return the padding that fills an event up to EVENT_BYTES."""
    digits = _DIGITS_OF_ALL if user is None else _DIGITS_OF_ONE
    return "x" * (EVENT_BYTES - _FRAME - digits - len(_topic(user)))


def envelope(emission: Emission) -> dict[str, Any]:
    """Return the event as in docs/reference/protocol.md, for contenders that serialise it themselves."""
    return {
        "offset": emission.seq + 1,
        "id": _ID,
        "type": NAME,
        "topic": _topic(emission.user),
        "time": emission.at // 1000,
        "data": {"seq": emission.seq, "at": emission.at, "pad": padding(emission.user)},
    }
