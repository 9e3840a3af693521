"""Server-sent events as bytes."""

from __future__ import annotations

from collections.abc import Mapping

from eventbus.protocol.cursor import MAX_CURSOR, Position, format_cursor

__all__ = ["sse_comment", "sse_event"]


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
