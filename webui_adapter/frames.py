"""Bytes for the line: WebSocket frames (RFC 6455), server-sent events (WHATWG HTML), the gateway's own words."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping

from eventbus.cursor import MAX_CURSOR, Position, format_cursor

__all__ = ["PING", "sse_comment", "sse_event", "text_frame", "word"]

PING = b"\x89\x00"
"""A ping without payload. A server's frames are not masked."""


def text_frame(payload: bytes) -> bytes:
    """One unfragmented text frame: two, four or ten bytes of header, then the payload."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + struct.pack("!Q", size) + payload


def word(type_: str, data: Mapping[str, object], time_ms: int) -> bytes:
    """One of the gateway's own events (``bus.…``), as JSON."""
    return json.dumps({"type": type_, "time": time_ms, "data": data}, separators=(",", ":")).encode()


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
