"""Server-sent events as bytes."""

from __future__ import annotations

from collections.abc import Mapping

from eventbus.protocol.cursor import MAX_CURSOR, Position, format_cursor

__all__ = ["sse_comment", "sse_event"]


def sse_event(type_: str, payload: bytes, cursor: Mapping[str, Position] | None) -> bytes:
    """Encode one server-sent event.

    The grammars of type and cursor have no line breaks, and JSON has none outside strings. The gateway omits a cursor
    that is too long to be sent back. The client then resumes from its last one and receives some events twice.

    Args:
        type_: the event's type.
        payload: the event as JSON.
        cursor: the id, or None.

    Returns:
        The bytes of the event.
    """
    id_ = "" if cursor is None else format_cursor(cursor)
    head = b"id: %b\n" % id_.encode() if 0 < len(id_) <= MAX_CURSOR else b""
    return b"%bevent: %b\ndata: %b\n\n" % (head, type_.encode(), payload)


def sse_comment() -> bytes:
    """Return a comment, which keeps proxies from closing the connection. The client ignores it."""
    return b":\n\n"
