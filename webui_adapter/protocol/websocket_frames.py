"""Bytes for the line: WebSocket frames (RFC 6455), server-sent events (WHATWG HTML), the gateway's own words."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping

from pydantic_core import PydanticSerializationError, to_json

from eventbus.protocol.cursor import MAX_CURSOR, Position, format_cursor

__all__ = ["PING", "PONG_LIMIT", "close_frame", "pong_frame", "sse_comment", "sse_event", "text_frame", "word"]

PING = b"\x89\x00"
"""A ping without payload. A server's frames are not masked."""


_encode = json.JSONEncoder(separators=(",", ":")).encode

PONG_LIMIT = 1_048_576
"""Bytes that wait for a peer, above which its pings are not answered any more: it does not read."""


def text_frame(payload: bytes) -> bytes:
    """One unfragmented text frame: two, four or ten bytes of header, then the payload."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + struct.pack("!Q", size) + payload


def pong_frame(payload: bytes) -> bytes:
    """The answer to a ping, whose payload has at most 125 bytes."""
    return bytes((0x8A, len(payload))) + payload


def close_frame(code: int | None, reason: str) -> bytes:
    """The end of a connection; None: without a code. Of the reason as much as there is room for."""
    if code is None:
        return b"\x88\x00"
    said = reason.encode()[:120].decode(errors="ignore").encode()
    return bytes((0x88, 2 + len(said))) + int(code).to_bytes(2, "big") + said


def word(type_: str, data: Mapping[str, object], time_ms: int) -> bytes:
    """One of the gateway's own events (``bus.…``), as JSON."""
    said = {"type": type_, "time": time_ms, "data": data}
    try:
        # A fifth of json's time; whoever connects hears five words.
        return to_json(said)
    except PydanticSerializationError:
        return _encode(said).encode()  # half a surrogate pair, in a reference that a page has chosen


def sse_event(type_: str, payload: bytes, cursor: Mapping[str, Position] | None) -> bytes:
    """One server-sent event. Type and cursor keep a grammar without line breaks, and JSON has none outside strings.

    A cursor longer than a gateway would read back is left out: then the page's last one counts, and brings too much.
    """
    id_ = "" if cursor is None else format_cursor(cursor)
    head = b"id: %b\n" % id_.encode() if 0 < len(id_) <= MAX_CURSOR else b""
    return b"%bevent: %b\ndata: %b\n\n" % (head, type_.encode(), payload)


def sse_comment() -> bytes:
    """A line that keeps proxies awake and that the page does not see."""
    return b":\n\n"
