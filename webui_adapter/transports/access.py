"""Who is let in over a WebSocket, decided from the request's head: the same for every way in. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl

from eventbus.errors import InvalidCursor, InvalidName
from eventbus.protocol.cursor import Cursor, parse_cursor
from eventbus.protocol.topics import check_pattern
from webui_adapter.access.origins import origin_allowed
from webui_adapter.access.tokens import SUBPROTOCOL, TOKEN_SUBPROTOCOL, token_of
from webui_adapter.errors import HandshakeRefused
from webui_adapter.gateway.gateway import Gateway

__all__ = ["Admitted", "admit", "reading_of"]


@dataclass(frozen=True, slots=True)
class Admitted:
    """What the handshake says of the session that it opens.

    Attributes:
        token: if the request carried one; it has not been checked.
        cursor: where to resume.
        topics: patterns to read, besides the usual ones.
        subprotocol: to be answered; browsers insist on one of what they offered.
    """

    token: str | None
    cursor: Cursor
    topics: tuple[str, ...]
    subprotocol: str | None


def admit(
    gateway: Gateway, headers: Mapping[str, str], offered: Sequence[str], cookies: Mapping[str, str], query: str
) -> Admitted:
    """Let a connection in. ``offered`` are its subprotocols. Raises HandshakeRefused (403, 503, 400), and counts."""
    settings = gateway.settings
    presented = token_of(headers, offered, cookies, settings.cookie_name)
    by_cookie = presented is not None and presented.carrier == "cookie"
    if not origin_allowed(headers.get("origin"), headers.get("host"), settings.allowed_origins, cookie=by_cookie):
        gateway.counters["refused.origin"] += 1
        raise HandshakeRefused(403, "this origin may not connect")
    if gateway.admission.full or gateway.departure.begun:
        gateway.counters["refused.full"] += 1
        raise HandshakeRefused(503, "this instance takes no more connections", {"Retry-After": "1"})
    try:
        cursor, topics = reading_of(query)
    except (InvalidCursor, InvalidName) as error:
        gateway.counters["refused.bad_request"] += 1
        raise HandshakeRefused(400, str(error)) from None
    return Admitted(None if presented is None else presented.token, cursor, topics, _subprotocol(offered))


def reading_of(query: str) -> tuple[Cursor, tuple[str, ...]]:
    """Cursor and patterns of a query. Raises InvalidCursor or InvalidName."""
    if not query:
        return {}, ()
    pairs = parse_qsl(query, keep_blank_values=True)
    # Of several cursors the last one counts.
    cursor = next((value for name, value in reversed(pairs) if name == "cursor"), "")
    return parse_cursor(cursor), tuple(check_pattern(value) for name, value in pairs if name == "topic")


def _subprotocol(offered: Sequence[str]) -> str | None:
    """The one with the token is echoed only if there is no other."""
    if SUBPROTOCOL in offered:
        return SUBPROTOCOL
    return next((name for name in offered if name.startswith(TOKEN_SUBPROTOCOL)), None)
