"""Server-sent events: the same session as over a WebSocket, for networks that do not let WebSockets through."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping
from typing import Final, cast

from fastapi import Request, Response
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from eventbus.errors import EventBusError, InvalidCursor, InvalidName
from eventbus.protocol.cursor import Cursor, parse_cursor
from webui_adapter.access.principal import Principal
from webui_adapter.errors import CommandRefused, RequestRefused
from webui_adapter.gateway.gateway import Gateway
from webui_adapter.instances.forwarding import carry_out, life_of
from webui_adapter.protocol.control_events import control_event
from webui_adapter.protocol.server_sent_events import sse_comment, sse_event
from webui_adapter.session.session import Session
from webui_adapter.session.states import State
from webui_adapter.transports.access import (
    AcceptedHandshake,
    Asker,
    admit,
    authorise_request,
    check_room,
    cors,
    parse_resume_query,
    read_body,
)
from webui_adapter.transports.encoders import SSE_ENCODER
from webui_adapter.transports.error_responses import command_status, error_response, json_response
from webui_adapter.transports.pull_transport import PullTransport
from webui_adapter.transports.uvicorn_http import EXTENSION, HttpProtocol

__all__ = ["serve_command", "serve_sse"]

_RETRY_MS: Final = 1000


async def serve_sse(gateway: Gateway, request: Request) -> Response:
    """Open the stream of one session.

    Args:
        gateway: the gateway that is asked.
        request: the ``GET`` request.

    Returns:
        The stream, or an error with its reason.
    """
    headers = cors(gateway, request)
    try:
        principal = await authorise_request(gateway, request, tickets=True)
        check_room(gateway)
        cursor, topics = _resume_position(gateway, request)
        client = admit(gateway, Asker.of(request))
    except EventBusError as error:
        return error_response(error, headers)
    headers |= {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}
    handshake = AcceptedHandshake(
        gateway.authenticator.credentials(None, lambda: request.scope), cursor, topics, None, client
    )
    return SessionStream(gateway, principal, handshake, headers)


def _resume_position(gateway: Gateway, request: Request) -> tuple[Cursor, tuple[str, ...]]:
    try:
        cursor, topics = parse_resume_query(request.url.query)
        last = request.headers.get("last-event-id")
        return (parse_cursor(last) if last else cursor), topics
    except (InvalidCursor, InvalidName) as error:
        gateway.counters["refused.bad_request"] += 1
        raise RequestRefused(400, "bad_request", str(error)) from None


class SessionStream(StreamingResponse):
    """The answer that is a session's stream. The session begins with the stream, so that it cannot outlive it."""

    def __init__(
        self, gateway: Gateway, principal: Principal, accepted: AcceptedHandshake, headers: dict[str, str]
    ) -> None:
        super().__init__((), media_type="text/event-stream", headers=headers)
        self._gateway = gateway
        self._principal = principal
        self._accepted = accepted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        gateway = self._gateway
        accepted = self._accepted
        session = gateway.connect(SSE_ENCODER, accepted.client)
        extension = scope.get("extensions", {}).get(EXTENSION)
        protocol = None if extension is None else cast("HttpProtocol", extension["protocol"])
        cut = None if protocol is None else protocol.take_over(gateway.drain.start)
        transport = PullTransport(session, gateway.settings.write_high, sse_comment(), cut)
        gateway.attach_transport(session, transport)
        gateway.authentication.admit(session, self._principal, accepted.cursor, accepted.topics, accepted.credentials)
        gateway.flush()
        self.body_iterator = _stream(gateway, session, transport)
        try:
            await super().__call__(scope, receive, send)
        finally:
            gateway.disconnect(session, 1006)


async def _stream(gateway: Gateway, session: Session, transport: PullTransport) -> AsyncIterator[bytes]:
    """Yield what the session queues, until either side ends the stream."""
    # The first block is an event: some clients report a block that has only ``retry`` as an event without data.
    retry = b"retry: %d\n" % _RETRY_MS
    output = session.output
    while True:
        out = await transport.next()
        if out:
            yield retry + b"".join(out)
            retry = b""
        if output.close_code is not None:
            data = {"code": int(output.close_code), "reason": output.close_reason}
            yield retry + sse_event(
                "bus.close", control_event("bus.close", data, int(gateway.clock.wall() * 1000)), None
            )
            return


async def serve_command(gateway: Gateway, request: Request, session_id: str) -> Response:
    """Carry out a command for a stream's session. The answer to the command arrives in the stream.

    Args:
        gateway: the gateway that is asked.
        request: the ``POST`` request.
        session_id: the id from ``bus.hello``.

    Returns:
        202 without a body; or an error. A refused command answers with the ``bus.error`` that a WebSocket would get.
    """
    headers = cors(gateway, request)
    try:
        principal = await authorise_request(gateway, request)
        body = await _read_command(request, gateway.settings.max_command_size)
        refusal = await _carry_out(gateway, principal.user, session_id, body)
    except EventBusError as error:
        if isinstance(error, CommandRefused):
            gateway.counters[f"refused.{error.code}"] += 1
            return _command_error(error.data(), headers)
        return error_response(error, headers)
    if refusal is not None:
        return _command_error(refusal, headers)
    return Response(status_code=202, headers=headers)


async def _read_command(request: Request, limit: int) -> bytes:
    body = await read_body(request, limit)
    if body is None:
        raise CommandRefused("too_large", f"a command has at most {limit} bytes", limit=limit)
    return body


async def _carry_out(gateway: Gateway, user: str, session_id: str, body: bytes) -> Mapping[str, object] | None:
    """Carry a command out here, or at the instance that has the session. Return the data of ``bus.error``, or None."""
    session = gateway.sessions.get(session_id)
    life = life_of(session_id)
    if session is None and gateway.forwarder is not None and life not in ("", gateway.life):
        gateway.rate_limiters.requested(user, gateway.clock.now())
        return await gateway.forwarder.forward(session_id, user, body)
    if session is None or session.principal is None or session.principal.user != user:
        raise CommandRefused("not_found", "no such session")
    if session.state is State.CLOSED:
        raise CommandRefused("not_found", "the session has ended")
    refusal = carry_out(session, body, gateway.handle)
    gateway.flush()
    return refusal


def _command_error(data: Mapping[str, object], headers: Mapping[str, str]) -> Response:
    """Answer with ``bus.error``, as over a WebSocket."""
    status, more = command_status(str(data["code"])), {}
    if status == 404:
        # Without Redis no instance knows the others. The client tries again, and a new connection may reach the right
        # one. HTTP/2 ignores the header.
        more["Connection"] = "close"
    if data.get("retry_ms") is not None:
        more["Retry-After"] = str(max(1, math.ceil(int(str(data["retry_ms"])) / 1000)))
    return json_response({"type": "bus.error", "data": dict(data)}, status, {**headers, **more})
