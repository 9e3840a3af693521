"""Access control of handshakes and requests: origin, token, and room for another connection."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

from fastapi import Request, Response
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import Scope

from eventbus.errors import InvalidCursor, InvalidName
from eventbus.protocol.cursor import Cursor, parse_cursor
from eventbus.protocol.topics import check_pattern
from webui_adapter.access.authenticator import Credentials
from webui_adapter.access.origins import origin_allowed
from webui_adapter.access.principal import Principal
from webui_adapter.access.tokens import SUBPROTOCOL, TOKEN_SUBPROTOCOL, Presented, token_of
from webui_adapter.errors import RequestRefused, TokenRefused
from webui_adapter.gateway.gateway import Gateway
from webui_adapter.transports.error_responses import error_response

__all__ = [
    "AcceptedHandshake",
    "Asker",
    "admit",
    "authorise_handshake",
    "authorise_request",
    "check_room",
    "cors",
    "log_refusal",
    "parse_resume_query",
    "preflight",
    "read_body",
]

log = logging.getLogger(__name__)

_ORIGIN_SHOWN: Final = 200  # characters


@dataclass(frozen=True, slots=True)
class Asker:
    """The sender of a request.

    Attributes:
        peer: the address of the other end of the connection; empty: a Unix socket.
        forwarded: the values of ``X-Forwarded-For``, separated by commas; None: there is none.
    """

    peer: str
    forwarded: str | None

    @classmethod
    def of(cls, connection: HTTPConnection) -> Asker:
        """Return who sends a request through ASGI.

        Args:
            connection: the request, or the WebSocket.
        """
        forwarded = connection.headers.getlist("x-forwarded-for")
        return cls(connection.client.host if connection.client else "", ", ".join(forwarded) if forwarded else None)


@dataclass(frozen=True, slots=True)
class AcceptedHandshake:
    """A handshake that the gateway accepts.

    Attributes:
        credentials: what the request presents, not checked.
        cursor: where to resume.
        topics: patterns to read in addition to the default ones.
        subprotocol: the subprotocol to answer with; browsers require one of those that they offered.
        client: the address that the connection counts for, until the session ends.
    """

    credentials: Credentials
    cursor: Cursor
    topics: tuple[str, ...]
    subprotocol: str | None
    client: str = ""


def authorise_handshake(
    gateway: Gateway,
    asker: Asker,
    headers: Mapping[str, str],
    offered: Sequence[str],
    cookies: Mapping[str, str],
    query: str,
    scope: Callable[[], Scope],
) -> AcceptedHandshake:
    """Check the head of a WebSocket handshake, and count refusals.

    Args:
        gateway: the gateway that is asked.
        asker: who sends the request.
        headers: the request's headers, names in lower case.
        offered: the subprotocols that the client offers.
        cookies: the request's cookies.
        query: the query string.
        scope: makes the ASGI scope of the handshake, for the application's function.

    Returns:
        The accepted handshake.

    Raises:
        RequestRefused: 400, 403, 429 or 503.
    """
    presented = token_of(headers, offered, cookies, gateway.settings.cookie_name, query)
    _check_origin(gateway, headers, cookie=_by_cookie(gateway, headers, presented))
    check_room(gateway)
    try:
        cursor, topics = parse_resume_query(query)
    except (InvalidCursor, InvalidName) as error:
        gateway.counters["refused.bad_request"] += 1
        raise RequestRefused(400, "bad_request", str(error)) from None
    credentials = gateway.authenticator.credentials(presented, scope)
    client = admit(gateway, asker)
    return AcceptedHandshake(credentials, cursor, topics, _subprotocol(offered), client)


def admit(gateway: Gateway, asker: Asker) -> str:
    """Count a new connection towards its address, and count refusals.

    Args:
        gateway: the gateway that is asked.
        asker: who sends the request.

    Returns:
        The address that counts, for ``Gateway.connect``.

    Raises:
        RequestRefused: 429: the address has too many connections, or opens them too fast.
    """
    limits = gateway.address_limits
    client = limits.client_of(asker.peer, asker.forwarded)
    excess = limits.admit(client, gateway.clock.now())
    if excess is None:
        return client
    refused = f"refused.{excess.reason}"
    if asker.forwarded is not None and not limits.proxies.trusts(asker.peer) and not gateway.counters[refused]:
        log.warning(
            "cannot distinguish the clients of %s, which sends X-Forwarded-For: if it is your proxy, add it to "
            "WEBUI_TRUSTED_PROXIES",
            asker.peer,
        )
    gateway.counters[refused] += 1
    raise RequestRefused(429, "rate_limited", str(excess), {"Retry-After": str(math.ceil(excess.wait))})


def check_room(gateway: Gateway) -> None:
    """Check that the instance takes another connection, and count refusals.

    Args:
        gateway: the gateway that is asked.

    Raises:
        RequestRefused: 503: the instance is full or shuts down.
    """
    if gateway.connection_limits.full or gateway.drain.started:
        gateway.counters["refused.full"] += 1
        raise RequestRefused(503, "unavailable", "this instance takes no more connections", {"Retry-After": "1"})


def parse_resume_query(query: str) -> tuple[Cursor, tuple[str, ...]]:
    """Read cursor and patterns from a query string.

    A polyfill of ``EventSource`` that cannot send ``Last-Event-ID`` adds ``lastEventId``, which counts more than the
    cursor: the page gave the cursor when it opened the stream.

    Args:
        query: the query string, for example ``cursor=user:42=e1.7&topic=collection:7:*``.

    Returns:
        The cursor and the patterns.

    Raises:
        InvalidCursor: the cursor is malformed.
        InvalidName: a pattern is malformed.
    """
    if not query:
        return {}, ()
    pairs = parse_qsl(query, keep_blank_values=True)
    # The last of several cursors counts.
    given = dict(pairs)
    cursor = given.get("lastEventId") or given.get("cursor", "")
    return parse_cursor(cursor), tuple(check_pattern(value) for name, value in pairs if name == "topic")


async def authorise_request(gateway: Gateway, request: Request, *, tickets: bool = False) -> Principal:
    """Check origin and credentials of a request over HTTP, and count refusals.

    Args:
        gateway: the gateway that is asked.
        request: the request.
        tickets: whether the query may carry a ticket.

    Returns:
        The user who asks.

    Raises:
        RequestRefused: 403: the origin is not allowed.
        TokenRefused: the token is missing or not accepted.
        AuthenticationFailed: the application's function failed.
    """
    query = request.url.query if tickets else ""
    presented = token_of(request.headers, (), request.cookies, gateway.settings.cookie_name, query)
    by_cookie = _by_cookie(gateway, request.headers, presented)
    try:
        _check_origin(gateway, request.headers, cookie=by_cookie and _needs_origin(request))
    except RequestRefused as error:
        log_refusal(request, error)
        raise
    authenticator = gateway.authenticator
    try:
        principal = await authenticator.check(authenticator.credentials(presented, lambda: request.scope))
        if principal is None:
            raise TokenRefused("the application does not accept the request's credentials")
    except TokenRefused as error:
        gateway.counters[f"auth.{error.cause}"] += 1
        raise
    return principal


async def read_body(request: Request, limit: int) -> bytes | None:
    """Read a request's body.

    Args:
        request: the request.
        limit: the largest body, in bytes; the gateway reads no more than about that.

    Returns:
        The body, or None if it exceeds the limit or the client has left.
    """
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                return None
    except ClientDisconnect:
        return None
    return body


def preflight(gateway: Gateway, request: Request) -> Response:
    """Answer a browser that asks whether a page of another origin may send this request.

    Args:
        gateway: the gateway that is asked.
        request: the ``OPTIONS`` request.

    Returns:
        An answer without a body, with CORS headers if the origin is in the list; 403 if it is not allowed.
    """
    try:
        _check_origin(gateway, request.headers, cookie=False)
    except RequestRefused as error:
        log_refusal(request, error)
        return error_response(error)
    return Response(status_code=204, headers=cors(gateway, request))


def log_refusal(connection: HTTPConnection, error: RequestRefused) -> None:
    """Log why a request is refused. Often a setting of the gateway is missing, which no user can see.

    Args:
        connection: the request, or the WebSocket.
        error: the refusal.
    """
    peer = connection.client.host if connection.client else ""
    level = logging.WARNING if error.code == "origin_not_allowed" else logging.INFO
    log.log(level, "cannot serve %s to %s: %d: %s", connection.url.path, peer, error.status, error)


def cors(gateway: Gateway, request: Request) -> dict[str, str]:
    """Return the headers that let a page of an allowed origin read the answer.

    Args:
        gateway: the gateway that is asked.
        request: the request.

    Returns:
        The headers; none if the origin is not in the list.
    """
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


def _check_origin(gateway: Gateway, headers: Mapping[str, str], *, cookie: bool) -> None:
    origin, host = headers.get("origin"), headers.get("host")
    if not origin_allowed(origin, host, gateway.settings.allowed_origins, cookie=cookie):
        gateway.counters["refused.origin"] += 1
        if origin is None:
            message = "a request with a cookie must have an Origin; or send the token in the header Authorization"
        else:
            message = f"origin {origin[:_ORIGIN_SHOWN]} may not connect: add it to WEBUI_ALLOWED_ORIGINS"
        raise RequestRefused(403, "origin_not_allowed", message)


def _by_cookie(gateway: Gateway, headers: Mapping[str, str], presented: Presented | None) -> bool:
    """Return whether a cookie may authenticate the request. An application's function may read any cookie."""
    if gateway.authenticator.asks_application and (presented is None or presented.carrier != "ticket"):
        return "cookie" in headers
    return presented is not None and presented.carrier == "cookie"


def _needs_origin(request: Request) -> bool:
    """Return whether a request with a cookie must have an Origin.

    Browsers omit the header on a GET of the same origin. They also omit it if another site embeds the address as an
    image or a script. That site could not read the stream, but it would use up the user's connections.
    """
    foreign = request.headers.get("sec-fetch-site") in ("cross-site", "same-site")
    return request.method != "GET" or foreign


def _subprotocol(offered: Sequence[str]) -> str | None:
    """Choose the answer; the subprotocol that carries the token only if the client offers no other."""
    if SUBPROTOCOL in offered:
        return SUBPROTOCOL
    return next((name for name in offered if name.startswith(TOKEN_SUBPROTOCOL)), None)
