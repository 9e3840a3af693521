"""uvicorn's WebSocket protocol with a fast way out: ``uvicorn --ws webui_adapter.uvicorn:WebSocketProtocol``.

Prepared frames go to the transport as they are. uvicorn's own way (an ASGI message, a coroutine, a frame object) costs
several times what the kernel takes for the write. All else, handshake, parsing, ASGI, stays uvicorn's; it also serves
an application's other WebSocket routes unchanged.
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
"""Where in the ASGI scope's ``extensions`` the protocol offers itself."""


class Owner(Protocol):
    """Who has taken the connection over."""

    def paused(self) -> None:
        """The socket's buffer is above the high mark."""

    def resumed(self) -> None:
        """It is below the low mark again."""

    def ponged(self) -> None:
        """The browser has answered a ping."""

    def shutdown(self) -> None:
        """The server is shutting down."""


check_parts(
    WebSocketsSansIOProtocol,
    ("app", "close_sent", "conn", "handshake_complete", "handshake_initiated", "loop", "queue", "read_paused"),
    ("handle_close", "handle_connect", "handle_ping", "handle_pong", "send_receive_event_to_app", "stop_keepalive"),
)


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One connection."""

    _owner: Owner | None = None
    # uvicorn 0.45 to 0.52.0 has none of these three states; 0.52.1 and newer name theirs otherwise.
    _lost = False
    _ended: asyncio.Event | None = None
    _cut_timer: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """See uvicorn."""
        self._lost = True
        if self._ended is not None:
            self._ended.set()
        if self._cut_timer is not None:
            self._cut_timer.cancel()
        super().connection_lost(exc)

    def handle_connect(self, event: Any) -> None:
        """Answer the handshake without compression, and offer ourselves to the application."""
        # Compressed frames could not be shared; per connection they cost 32 KB and more than the write itself.
        self.conn.available_extensions = []
        application: Any = self.app

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await application(scope, receive, send)
            # uvicorn closes the transport when the application returns. The peer's answer to our close frame would
            # then meet a closed socket, which resets the connection, and the peer would not see the code.
            if self._ended is not None:
                await self._ended.wait()

        self.app = app
        super().handle_connect(event)
        if self.handshake_initiated and not self.handshake_complete:
            self.scope["extensions"][EXTENSION] = {"protocol": self}

    def take_over(self, owner: Owner, write_high: int) -> None:
        """From now on the owner pings, hears of a slow socket and of the shutdown, and writes with ``write``."""
        self.stop_keepalive()
        self._owner = owner
        self.transport.set_write_buffer_limits(high=write_high)

    def write(self, frames: bytes) -> None:
        """Write prepared frames. Never blocks: what the socket does not take is buffered, and the owner told."""
        if not self.close_sent and not self._lost:
            self.transport.write(frames)

    def ping(self) -> None:
        """Send a ping without payload."""
        self.write(PING)

    def end(self, code: int, reason: str, timeout: float) -> None:
        """Close with a code. A peer that does not answer is cut off after ``timeout`` seconds."""
        if self.close_sent or self._lost:
            return
        self.conn.send_close(code, reason.encode()[:120].decode(errors="ignore"))
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        # The connection ends when the peer has answered; to end it at once, with something of the peer's unread,
        # would reset it, and the code be lost.
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self._ended = asyncio.Event()
        self._cut_timer = self.loop.call_later(timeout, self.cut)

    def cut(self) -> None:
        """End the connection without another word."""
        self.transport.abort()

    def handle_close(self, event: Frame) -> None:
        """See uvicorn; nothing is written behind the answer."""
        super().handle_close(event)
        if self._owner is not None:
            self.close_sent = True
            # The peer has answered our close frame; uvicorn closes the transport where it has sent that itself.
            if self._ended is not None:
                self.transport.close()

    def send_receive_event_to_app(self) -> None:
        """See uvicorn. Behind our close frame nothing is read but the peer's answer."""
        if self._ended is None:
            super().send_receive_event_to_app()

    def handle_pong(self, event: Frame) -> None:
        """Tell the owner."""
        if self._owner is None:
            super().handle_pong(event)
        else:
            self._owner.ponged()

    def handle_ping(self) -> None:
        """Answer, unless the peer pings without ever reading: the answers would fill the memory."""
        if self.transport.get_write_buffer_size() > PONG_LIMIT:
            self.transport.abort()
        else:
            super().handle_ping()

    def pause_writing(self) -> None:
        """See ``asyncio.Protocol``."""
        super().pause_writing()
        if self._owner is not None:
            self._owner.paused()

    def resume_writing(self) -> None:
        """See ``asyncio.Protocol``."""
        super().resume_writing()
        if self._owner is not None:
            self._owner.resumed()

    def shutdown(self) -> None:
        """Uvicorn would send 1012 to everybody at once; the owner lets them go one by one, with a code of ours."""
        if self._owner is None:
            super().shutdown()
        else:
            self._owner.shutdown()
