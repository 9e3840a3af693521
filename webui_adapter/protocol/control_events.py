"""Control events (``bus.*``): what the gateway itself sends to a client."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pydantic_core import PydanticSerializationError, to_json

__all__ = ["control_event"]


_encode = json.JSONEncoder(separators=(",", ":")).encode


def control_event(type_: str, data: Mapping[str, object], time_ms: int) -> bytes:
    """Encode a control event as JSON.

    Args:
        type_: the type, ``bus.…``.
        data: the data.
        time_ms: milliseconds since 1970.

    Returns:
        The JSON.
    """
    event = {"type": type_, "time": time_ms, "data": data}
    try:
        # Takes a fifth of the time that json takes; each new connection receives five control events.
        return to_json(event)
    except PydanticSerializationError:
        return _encode(event).encode()  # half a surrogate pair in a client's reference
