"""uvicorn's WebSocket protocol with a shorter path to the socket: ``--ws webui_adapter.uvicorn:WebSocketProtocol``.

Prepared frames go to the transport as they are. uvicorn's own path (an ASGI message, a coroutine, a frame object)
costs several times what the kernel takes for the write. Handshake, parsing and ASGI are uvicorn's. The protocol also
serves the application's other WebSocket routes, unchanged.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from webui_adapter.protocol.websocket_frames import PING, PONG_LIMIT
from webui_adapter.transports.uvicorn_version import check_parts

__all__ = ["EXTENSION", "Owner", "WebSocketProtocol"]

EXTENSION = "eventbus"
"""The key of this protocol in the ``extensions`` of the ASGI scope."""


class Owner(Protocol):
    """The owner of a connection: a session's transport."""

    def paused(self) -> None:
        """The socket's buffer is above the high mark."""

    def resumed(self) -> None:
        """The socket's buffer is below the low mark again."""

    def ponged(self) -> None:
        """The client has answered a ping."""

    def shutdown(self) -> None:
        """The server shuts down."""


check_parts(
    WebSocketsSansIOProtocol,
    ("app", "close_sent", "conn", "handshake_complete", "handshake_initiated", "loop", "queue", "read_paused"),
    ("handle_close", "handle_connect", "handle_ping", "handle_pong", "send_receive_event_to_app", "stop_keepalive"),
)


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket connection."""

    _owner: Owner | None = None
    # uvicorn 0.45 to 0.52.0 has none of these three states; 0.52.1 and newer name theirs otherwise.
    _lost = False
    _ended: asyncio.Event | None = None
    _cut_timer: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the connection has ended.

        Args:
            exc: why it ended.
        """
        self._lost = True
        if self._ended is not None:
            self._ended.set()
        if self._cut_timer is not None:
            self._cut_timer.cancel()
        super().connection_lost(exc)

    def handle_connect(self, event: Any) -> None:
        """Answer the handshake without compression, and offer this protocol to the application.

        Args:
            event: the request.
        """
        # Sessions cannot share compressed frames. Compression costs 32 KB per connection, and more than the write.
        self.conn.available_extensions = []
        application: Any = self.app

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await application(scope, receive, send)
            # uvicorn closes the transport when the application returns. The client's answer to the close frame would
            # then reset the connection, and the client would lose the code.
            if self._ended is not None:
                await self._ended.wait()

        self.app = app
        super().handle_connect(event)
        if self.handshake_initiated and not self.handshake_complete:
            self.scope["extensions"][EXTENSION] = {"protocol": self}

    def take_over(self, owner: Owner, write_high: int) -> None:
        """Hand the connection to an owner, who pings, writes, and is notified of a full socket and of the shutdown.

        Args:
            owner: the owner.
            write_high: unsent bytes above which the socket counts as full.
        """
        self.stop_keepalive()
        self._owner = owner
        self.transport.set_write_buffer_limits(high=write_high)

    def write(self, frames: bytes) -> None:
        """Write prepared frames. Never blocks: the transport buffers what the socket does not accept.

        Args:
            frames: the bytes.
        """
        if not self.close_sent and not self._lost:
            self.transport.write(frames)

    def ping(self) -> None:
        """Send a ping without payload."""
        self.write(PING)

    def end(self, code: int, reason: str, timeout: float) -> None:
        """Send a close frame, and cut the connection if the client does not answer.

        Args:
            code: the close code.
            reason: the reason; at most 120 bytes are sent.
            timeout: seconds for the client's answer.
        """
        if self.close_sent or self._lost:
            return
        self.conn.send_close(code, reason.encode()[:120].decode(errors="ignore"))
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        # The connection ends with the client's answer. A close with unread bytes resets the connection, and the
        # client would lose the code.
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self._ended = asyncio.Event()
        self._cut_timer = self.loop.call_later(timeout, self.cut)

    def cut(self) -> None:
        """End the connection without waiting for the client."""
        self.transport.abort()

    def handle_close(self, event: Frame) -> None:
        """Answer a close frame. Nothing is written after the answer.

        Args:
            event: the frame.
        """
        super().handle_close(event)
        if self._owner is not None:
            self.close_sent = True
            # The client has answered the close frame. uvicorn closes the transport only after its own close frames.
            if self._ended is not None:
                self.transport.close()

    def send_receive_event_to_app(self) -> None:
        """Pass a message to the application, unless the gateway has sent a close frame."""
        if self._ended is None:
            super().send_receive_event_to_app()

    def handle_pong(self, event: Frame) -> None:
        """Notify the owner.

        Args:
            event: the frame.
        """
        if self._owner is None:
            super().handle_pong(event)
        else:
            self._owner.ponged()

    def handle_ping(self) -> None:
        """Answer a ping, unless the client sends pings but reads nothing: answers would use up the memory."""
        if self.transport.get_write_buffer_size() > PONG_LIMIT:
            self.transport.abort()
        else:
            super().handle_ping()

    def pause_writing(self) -> None:
        """Notify the owner that the socket is full."""
        super().pause_writing()
        if self._owner is not None:
            self._owner.paused()

    def resume_writing(self) -> None:
        """Notify the owner that the socket accepts bytes again."""
        super().resume_writing()
        if self._owner is not None:
            self._owner.resumed()

    def shutdown(self) -> None:
        """Let the owner close the connection at its own time. uvicorn alone sends 1012 to all clients immediately."""
        if self._owner is None:
            super().shutdown()
        else:
            self._owner.shutdown()
