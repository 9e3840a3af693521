"""WebSockets through ASGI: a handshake becomes a session, messages become commands.

On a server that runs ``WebSocketProtocol`` frames go straight to the connection (``PushTransport``). On any other
server the session sends ASGI messages (``PullTransport``), which is slower and sends no pings.
"""

from __future__ import annotations

import asyncio
from typing import cast

from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect

from webui_adapter.access.inbound_limit import InboundLimit
from webui_adapter.errors import RequestRefused
from webui_adapter.gateway.gateway import Gateway
from webui_adapter.session.session import Session
from webui_adapter.transports.access import AcceptedHandshake, Asker, authorise_handshake, log_refusal
from webui_adapter.transports.backpressure import count_inbound, message_limit, write_queued
from webui_adapter.transports.encoders import FRAME_ENCODER, TEXT_ENCODER
from webui_adapter.transports.error_responses import error_response
from webui_adapter.transports.pull_transport import PullTransport
from webui_adapter.transports.uvicorn_websocket import EXTENSION, WebSocketProtocol

__all__ = ["serve_websocket"]


class PushTransport:
    """The transport of a session on a ``WebSocketProtocol``."""

    def __init__(self, gateway: Gateway, session: Session, protocol: WebSocketProtocol) -> None:
        self._gateway = gateway
        self._session = session
        self._protocol = protocol
        self._inbound = InboundLimit(gateway.settings, gateway.clock.now())
        protocol.take_over(self, gateway.settings)

    def flush(self) -> None:
        """Write what the session has queued, and close the connection if the session asks for it."""
        output = self._session.output
        out = output.out
        if out:
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            self._protocol.write(data)
        if output.close_code is not None:
            self._protocol.end(output.close_code, output.close_reason, self._gateway.settings.close_timeout)

    def ping(self) -> None:
        """Send a ping."""
        self._protocol.ping()

    def cut(self) -> None:
        """End the connection without waiting for the client."""
        self._protocol.cut()

    def paused(self) -> None:
        """Queue from now on: the socket is full."""
        self._session.output.pause_writing()

    def resumed(self) -> None:
        """Write the queue: the socket accepts bytes again."""
        write_queued(self._session, self, self._gateway.settings.write_high)

    def ponged(self) -> None:
        """Note that the client is alive."""
        self._session.pong()

    @property
    def message_limit(self) -> int:
        """The largest message that the client may send now, in bytes."""
        return message_limit(self._gateway.settings, self._session)

    def received(self, frames: int, size: int, waiting: int) -> float | None:
        """Count what the client has sent.

        Args:
            frames: the frames that were parsed.
            size: their bytes.
            waiting: the bytes that are not parsed yet.

        Returns:
            Seconds for which to read nothing; 0: read on; None: read nothing more.
        """
        return count_inbound(self._gateway, self._session, self._inbound, frames, size, waiting)

    def shutdown(self) -> None:
        """Drain the gateway: the server shuts down."""
        self._gateway.drain.start()


async def serve_websocket(gateway: Gateway, websocket: WebSocket) -> None:
    """Serve one connection, from its handshake to its end.

    Args:
        gateway: the gateway that is asked.
        websocket: the connection.
    """
    # uvicorn before 0.50 passes the header as it is, with several names in one text.
    offered = [name.strip() for names in websocket.scope["subprotocols"] for name in names.split(",")]
    query = websocket.scope["query_string"].decode("latin-1")
    try:
        accepted = authorise_handshake(
            gateway,
            Asker.of(websocket),
            websocket.headers,
            offered,
            websocket.cookies,
            query,
            lambda: websocket.scope,
        )
    except RequestRefused as refused:
        log_refusal(websocket, refused)
        await websocket.send_denial_response(error_response(refused))
        return
    try:
        await websocket.accept(subprotocol=accepted.subprotocol)
    except BaseException:
        gateway.address_limits.release(accepted.client)
        raise
    await _serve(gateway, websocket, accepted)


async def _serve(gateway: Gateway, websocket: WebSocket, accepted: AcceptedHandshake) -> None:
    extension = websocket.scope.get("extensions", {}).get(EXTENSION)
    pulling: asyncio.Task[None] | None = None
    if extension is not None:
        session = gateway.connect(FRAME_ENCODER, accepted.client)
        protocol = cast("WebSocketProtocol", extension["protocol"])
        gateway.attach_transport(session, PushTransport(gateway, session, protocol))
    else:
        session = gateway.connect(TEXT_ENCODER, accepted.client)
        pull = PullTransport(session, gateway.settings.write_high)
        gateway.attach_transport(session, pull)
        pulling = asyncio.create_task(_pull(pull, session, websocket))
    code = 1006
    try:
        gateway.authentication.begin(session, accepted.credentials, accepted.cursor, accepted.topics)
        gateway.flush()
        code = await _receive(gateway, session, websocket)
    finally:
        gateway.disconnect(session, code)
        if pulling is not None:
            pulling.cancel()


async def _receive(gateway: Gateway, session: Session, websocket: WebSocket) -> int:
    """Receive commands until the end, and return the close code."""
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return int(message.get("code") or 1005)
        if session.output.close_code is not None:
            continue  # The message was on its way when the gateway asked the session to close.
        text = message.get("text")
        command = session.receive(text if text is not None else message.get("bytes", b""))
        if command is None:
            gateway.flush()
        else:
            gateway.handle(session, command)


async def _pull(pull: PullTransport, session: Session, websocket: WebSocket) -> None:
    """Send what the session queues. While a send waits, the session counts as slow."""
    try:
        while True:
            for text in await pull.next():
                if text:
                    await websocket.send_text(text.decode())
            if session.output.close_code is not None:
                await websocket.close(session.output.close_code, session.output.close_reason)
                return
    except (WebSocketDisconnect, RuntimeError):
        return  # The client has left; the receiving side ends the session.
