"""Bytes for the line: WebSocket frames (RFC 6455), server-sent events (WHATWG HTML), the gateway's own words."""

from __future__ import annotations

import struct

__all__ = ["PING", "PONG_LIMIT", "close_frame", "pong_frame", "text_frame"]

PING = b"\x89\x00"
"""A ping without payload. A server's frames are not masked."""


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
