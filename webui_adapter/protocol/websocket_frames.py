"""WebSocket frames of a server (RFC 6455)."""

from __future__ import annotations

import struct

__all__ = ["PING", "PONG_LIMIT", "close_frame", "pong_frame", "text_frame"]

PING = b"\x89\x00"
"""A ping without payload. A server's frames are not masked."""


PONG_LIMIT = 1_048_576
"""Unsent bytes above which the gateway no longer answers pings: the peer sends pings but reads nothing."""


def text_frame(payload: bytes) -> bytes:
    """Encode one unfragmented text frame.

    Args:
        payload: the text as UTF-8.

    Returns:
        Two, four or ten bytes of header, then the payload.
    """
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + struct.pack("!Q", size) + payload


def pong_frame(payload: bytes) -> bytes:
    """Encode the answer to a ping.

    Args:
        payload: the payload of the ping, at most 125 bytes.

    Returns:
        The frame.
    """
    return bytes((0x8A, len(payload))) + payload


def close_frame(code: int | None, reason: str) -> bytes:
    """Encode a close frame.

    Args:
        code: the close code; None: the frame has none.
        reason: the reason; the frame holds its first 120 bytes.

    Returns:
        The frame.
    """
    if code is None:
        return b"\x88\x00"
    text = reason.encode()[:120].decode(errors="ignore").encode()
    return bytes((0x88, 2 + len(text))) + int(code).to_bytes(2, "big") + text
