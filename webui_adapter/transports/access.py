"""Who is let in over a WebSocket, decided from the request's head: the same for every way in. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl

from fastapi import Request, Response
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse

from eventbus.errors import InvalidCursor, InvalidName
from eventbus.protocol.cursor import Cursor, parse_cursor
from eventbus.protocol.topics import check_pattern
from webui_adapter.access.origins import origin_allowed
from webui_adapter.access.tokens import SUBPROTOCOL, TOKEN_SUBPROTOCOL, Principal, token_of
from webui_adapter.errors import HandshakeRefused, TokenRefused
from webui_adapter.gateway.gateway import Gateway

__all__ = [
    "AcceptedHandshake",
    "authorise_handshake",
    "cors",
    "parse_resume_query",
    "preflight",
    "principal_of",
    "read_body",
    "refusal",
]


@dataclass(frozen=True, slots=True)
class AcceptedHandshake:
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


def authorise_handshake(
    gateway: Gateway, headers: Mapping[str, str], offered: Sequence[str], cookies: Mapping[str, str], query: str
) -> AcceptedHandshake:
    """Let a connection in. ``offered`` are its subprotocols. Raises HandshakeRefused (403, 503, 400), and counts."""
    settings = gateway.settings
    presented = token_of(headers, offered, cookies, settings.cookie_name)
    by_cookie = presented is not None and presented.carrier == "cookie"
    if not origin_allowed(headers.get("origin"), headers.get("host"), settings.allowed_origins, cookie=by_cookie):
        gateway.counters["refused.origin"] += 1
        raise HandshakeRefused(403, "this origin may not connect")
    if gateway.connection_limits.full or gateway.drain.started:
        gateway.counters["refused.full"] += 1
        raise HandshakeRefused(503, "this instance takes no more connections", {"Retry-After": "1"})
    try:
        cursor, topics = parse_resume_query(query)
    except (InvalidCursor, InvalidName) as error:
        gateway.counters["refused.bad_request"] += 1
        raise HandshakeRefused(400, str(error)) from None
    return AcceptedHandshake(None if presented is None else presented.token, cursor, topics, _subprotocol(offered))


def parse_resume_query(query: str) -> tuple[Cursor, tuple[str, ...]]:
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


def refusal(gateway: Gateway, request: Request) -> Response | None:
    """Why a request over HTTP is not served, as its answer; or None."""
    presented = token_of(request.headers, (), request.cookies, gateway.settings.cookie_name)
    by_cookie = presented is not None and presented.carrier == "cookie"
    headers = request.headers
    if not origin_allowed(
        headers.get("origin"), headers.get("host"), gateway.settings.allowed_origins, cookie=_unsafe(request, by_cookie)
    ):
        gateway.counters["refused.origin"] += 1
        return PlainTextResponse("this origin may not connect", 403)
    try:
        gateway.tokens.check(None if presented is None else presented.token)
    except TokenRefused as error:
        gateway.counters["auth.refused"] += 1
        return PlainTextResponse(str(error), 401, {"WWW-Authenticate": "Bearer", **cors(gateway, request)})
    return None


def principal_of(gateway: Gateway, request: Request) -> Principal:
    """Who asks; after ``refusal`` had nothing against it."""
    presented = token_of(request.headers, (), request.cookies, gateway.settings.cookie_name)
    assert presented is not None
    return gateway.tokens.check(presented.token)


def _unsafe(request: Request, by_cookie: bool) -> bool:
    """Whether a missing Origin is suspicious. Browsers omit it on a same-origin GET, and where another site names
    us as an image or a script: that cannot be read, but streams would take the user's connections.
    """
    foreign = request.headers.get("sec-fetch-site") in ("cross-site", "same-site")
    return by_cookie and (request.method != "GET" or foreign)


async def read_body(request: Request, limit: int) -> bytes | None:
    """The body, or None if it is over the limit; no more than that is read."""
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                return None
    except ClientDisconnect:
        return None  # nobody reads the answer
    return body


def preflight(gateway: Gateway, request: Request) -> Response:
    """Answer to a browser that asks whether a page of another, allowed origin may send a token or a command."""
    return Response(status_code=204, headers=cors(gateway, request))


def cors(gateway: Gateway, request: Request) -> dict[str, str]:
    """Headers with which a page of an allowed origin may read the answer."""
    origin = request.headers.get("origin")
    if origin is None or origin not in gateway.settings.allowed_origins:
        return {}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Allow-Headers": "authorization, content-type, last-event-id",
        "Access-Control-Allow-Methods": "GET, POST",
        "Access-Control-Expose-Headers": "retry-after",
        "Vary": "Origin",
    }
