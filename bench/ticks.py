"""The event that is sent: the same members and size for every contender, 235 bytes of JSON."""

from __future__ import annotations

import uuid
from typing import Any, Final

from bench.contenders.contract import Emission

__all__ = ["EVENT_BYTES", "NAME", "OPERATION", "TOPIC", "envelope", "padding", "user_name"]

EVENT_BYTES: Final = 235
NAME: Final = "bench.tick"
OPERATION: Final = "bench"
TOPIC: Final = "bench"  # of what goes to everybody
_ID: Final = str(uuid.UUID("01934e7a-0000-7000-8000-000000000000"))
# What is in an event besides the padding, with an offset of four digits and a sequence number of three.
_FRAME: Final = len(
    '{"offset":1234,"id":"","type":"","topic":"","time":1790000000123,"data":{"seq":123,"at":1790000000123456,"pad":""}}'
    + NAME
    + _ID
)


def user_name(number: int) -> str:
    """Name of the user of a connection, always of the same length."""
    return f"u{number:05d}"


def _topic(user: str | None) -> str:
    return f"system:{TOPIC}" if user is None else f"user:{user}:operation:{OPERATION}"


def padding(user: str | None) -> str:
    """What fills an event up to EVENT_BYTES."""
    return "x" * (EVENT_BYTES - _FRAME - len(_topic(user)))


def envelope(emission: Emission) -> dict[str, Any]:
    """The event as docs/PROTOCOL.md has it, for contenders that serialise by themselves."""
    return {
        "offset": emission.seq + 1,
        "id": _ID,
        "type": NAME,
        "topic": _topic(emission.user),
        "time": emission.at // 1000,
        "data": {"seq": emission.seq, "at": emission.at, "pad": padding(emission.user)},
    }
