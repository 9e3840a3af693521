"""The SSE edge: the same session as a stream of server-sent events, for networks that do not let WebSockets through."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import cast

from fastapi import Request, Response
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from eventbus.errors import InvalidCursor, InvalidName
from eventbus.protocol.cursor import Cursor, parse_cursor
from webui_adapter.access.tokens import token_of
from webui_adapter.gateway.gateway import Gateway
from webui_adapter.protocol.control_events import control_event
from webui_adapter.protocol.server_sent_events import sse_comment, sse_event
from webui_adapter.session.session import Session
from webui_adapter.session.states import State
from webui_adapter.transports.access import cors, parse_resume_query, principal_of, read_body, refusal
from webui_adapter.transports.encoders import SSE_ENCODER
from webui_adapter.transports.pull_transport import PullTransport
from webui_adapter.transports.uvicorn_http import EXTENSION, HttpProtocol

__all__ = ["serve_command", "serve_sse"]

_RETRY_MS = 1000


def serve_sse(gateway: Gateway, request: Request) -> Response:
    """The stream of one session."""
    refused = refusal(gateway, request)
    if refused is not None:
        return refused
    if gateway.connection_limits.full or gateway.drain.started:
        gateway.counters["refused.full"] += 1
        return PlainTextResponse(
            "this instance takes no more connections", 503, {"Retry-After": "1", **cors(gateway, request)}
        )
    try:
        cursor, topics = parse_resume_query(request.url.query)
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
        session = gateway.connect(SSE_ENCODER)
        extension = scope.get("extensions", {}).get(EXTENSION)
        protocol = None if extension is None else cast("HttpProtocol", extension["protocol"])
        cut = None if protocol is None else protocol.take_over(gateway.drain.start)
        line = PullTransport(session, gateway.settings.write_high, sse_comment(), cut)
        gateway.attach_transport(session, line)
        gateway.authenticate(session, self._token, self._cursor, self._topics)
        gateway.flush()
        self.body_iterator = _stream(gateway, session, line)
        try:
            await super().__call__(scope, receive, send)
        finally:
            gateway.disconnect(session, 1006)


async def _stream(gateway: Gateway, session: Session, line: PullTransport) -> AsyncIterator[bytes]:
    """What the session has to say, until either side ends it."""
    yield b"retry: %d\n\n" % _RETRY_MS
    while True:
        out = await line.next()
        if out:
            yield b"".join(out)
        if session.output.close_code is not None:
            said = {"code": int(session.output.close_code), "reason": session.output.close_reason}
            yield sse_event("bus.close", control_event("bus.close", said, int(gateway.clock.wall() * 1000)), None)
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
    body = await read_body(request, gateway.settings.max_command_size)
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
