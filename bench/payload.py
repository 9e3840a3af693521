"""The event that is sent: the same members and size for every contender, 235 bytes of JSON if nothing else is said."""

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
TOPIC: Final = "bench"  # of what goes to everybody
_ID: Final = str(uuid.UUID("01934e7a-0000-7000-8000-000000000000"))
# What is in an event besides topic, padding and the digits of offset and sequence number.
_FRAME: Final = len(
    '{"offset":,"id":"","type":"","topic":"","time":1790000000123,"data":{"seq":,"at":1790000000123456,"pad":""}}'
    + NAME
    + _ID
)
# Those digits, as they are most of the time: thousands of events to everybody, some dozens to each user.
_DIGITS_OF_ALL: Final = 7
_DIGITS_OF_ONE: Final = 4


def user_name(number: int) -> str:
    """Name of the user of a connection, always of the same length."""
    return f"u{number:05d}"


def _topic(user: str | None) -> str:
    return f"system:{TOPIC}" if user is None else f"user:{user}:operation:{OPERATION}"


def padding(user: str | None) -> str:
    """What fills an event up to EVENT_BYTES."""
    digits = _DIGITS_OF_ALL if user is None else _DIGITS_OF_ONE
    return "x" * (EVENT_BYTES - _FRAME - digits - len(_topic(user)))


def envelope(emission: Emission) -> dict[str, Any]:
    """The event as docs/reference/protocol.md has it, for contenders that serialise by themselves."""
    return {
        "offset": emission.seq + 1,
        "id": _ID,
        "type": NAME,
        "topic": _topic(emission.user),
        "time": emission.at // 1000,
        "data": {"seq": emission.seq, "at": emission.at, "pad": padding(emission.user)},
    }
