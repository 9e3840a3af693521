"""The SSE edge: the same session as a stream of server-sent events, for networks that do not let WebSockets through."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import cast

from fastapi import Request, Response
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from eventbus.errors import InvalidCursor, InvalidName
from eventbus.protocol.cursor import Cursor, parse_cursor
from webui_adapter.access.origins import origin_allowed
from webui_adapter.access.tokens import Principal, token_of
from webui_adapter.errors import TokenRefused
from webui_adapter.gateway.gateway import Gateway
from webui_adapter.protocol.websocket_frames import sse_comment, sse_event, word
from webui_adapter.session.batch import Delivery
from webui_adapter.session.output import Outlet
from webui_adapter.session.session import Session
from webui_adapter.session.states import State
from webui_adapter.transports.access import reading_of
from webui_adapter.transports.pull_transport import PullLine
from webui_adapter.transports.uvicorn_http import EXTENSION, EventBusHttpProtocol

__all__ = ["body_of", "cors", "preflight", "principal_of", "refusal", "serve_command", "serve_sse"]

_RETRY_MS = 1000


class SseFraming:
    """Events with the session's whole cursor as ``id``. The gateway's own words have none: they are not resumed."""

    shared = False
    pongs = False

    def event(self, outlet: Outlet, delivery: Delivery) -> bytes:
        return sse_event(delivery.record.type, delivery.record.event, outlet.cursor())

    def word(self, outlet: Outlet, type_: str, data: Mapping[str, object]) -> bytes:
        # A position is where to resume from, though no event: it has an id too.
        cursor = outlet.cursor() if type_ in ("bus.position", "bus.release") else None
        return sse_event(type_, word(type_, data, int(outlet.clock.wall() * 1000)), cursor)

    def local(self, type_: str, event: bytes) -> bytes:
        return sse_event(type_, event, None)


FRAMING = SseFraming()


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


def serve_sse(gateway: Gateway, request: Request) -> Response:
    """The stream of one session."""
    refused = refusal(gateway, request)
    if refused is not None:
        return refused
    if gateway.admission.full or gateway.departure.begun:
        gateway.counters["refused.full"] += 1
        return PlainTextResponse(
            "this instance takes no more connections", 503, {"Retry-After": "1", **cors(gateway, request)}
        )
    try:
        cursor, topics = reading_of(request.url.query)
        last = request.headers.get("last-event-id")
        if last:
            cursor = parse_cursor(last)
    except (InvalidCursor, InvalidName) as error:
        gateway.counters["refused.bad_request"] += 1
        return PlainTextResponse(str(error), 400, cors(gateway, request))
    presented = token_of(request.headers, (), request.cookies, gateway.settings.cookie_name)
    assert presented is not None
    headers = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no", **cors(gateway, request)}
    return SessionStream(gateway, presented.token, cursor, topics, headers)


class SessionStream(StreamingResponse):
    """The answer that is a session's stream. The session lives while it is sent; begun before, it might outlive it."""

    def __init__(
        self, gateway: Gateway, token: str, cursor: Cursor, topics: tuple[str, ...], headers: dict[str, str]
    ) -> None:
        super().__init__((), media_type="text/event-stream", headers=headers)
        self._gateway = gateway
        self._token = token
        self._cursor = cursor
        self._topics = topics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        gateway = self._gateway
        session = gateway.connect(FRAMING)
        extension = scope.get("extensions", {}).get(EXTENSION)
        protocol = None if extension is None else cast("EventBusHttpProtocol", extension["protocol"])
        cut = None if protocol is None else protocol.take_over(gateway.departure.leave_soon)
        line = PullLine(session, gateway.settings.write_high, sse_comment(), cut)
        gateway.attach_line(session, line)
        gateway.authenticate(session, self._token, self._cursor, self._topics)
        gateway.flush()
        self.body_iterator = _stream(gateway, session, line)
        try:
            await super().__call__(scope, receive, send)
        finally:
            gateway.disconnect(session, 1006)


async def _stream(gateway: Gateway, session: Session, line: PullLine) -> AsyncIterator[bytes]:
    """What the session has to say, until either side ends it."""
    yield b"retry: %d\n\n" % _RETRY_MS
    while True:
        out = await line.next()
        if out:
            yield b"".join(out)
        if session.close_code is not None:
            said = {"code": int(session.close_code), "reason": session.close_reason}
            yield sse_event("bus.close", word("bus.close", said, int(gateway.clock.wall() * 1000)), None)
            return


async def serve_command(gateway: Gateway, request: Request, session_id: str) -> Response:
    """A command for a session that has no way back of its own."""
    refused = refusal(gateway, request)
    if refused is not None:
        return refused
    principal = principal_of(gateway, request)
    session = gateway.sessions.get(session_id)
    if session is None or session.principal is None or session.principal.user != principal.user:
        return PlainTextResponse("no such session on this instance", 404, cors(gateway, request))
    if session.state is State.CLOSED:
        return PlainTextResponse("the session has ended", 404, cors(gateway, request))
    body = await body_of(request, gateway.settings.max_command_size)
    if body is None:
        gateway.counters["refused.too_large"] += 1
        limit = gateway.settings.max_command_size
        data = {"code": "too_large", "message": f"a command has at most {limit} bytes", "limit": limit}
        return JSONResponse({"type": "bus.error", "data": data}, 413, cors(gateway, request))
    heard: list[Mapping[str, object]] = []
    command = session.receive(body, heard.append)
    if command is None:
        gateway.flush()
        status = 429 if heard and heard[0]["code"] == "rate_limited" else 400
        # Escaped: a reference that a page has chosen may hold half a surrogate pair.
        said = json.dumps({"type": "bus.error", "data": dict(heard[0])})
        return Response(said, status, cors(gateway, request), "application/json")
    gateway.handle(session, command)
    return Response(status_code=202, headers=cors(gateway, request))


async def body_of(request: Request, limit: int) -> bytes | None:
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
