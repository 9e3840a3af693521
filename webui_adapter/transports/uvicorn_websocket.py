"""uvicorn's WebSocket protocol with a shorter path to the socket: ``--ws webui_adapter.uvicorn:WebSocketProtocol``.

Prepared frames go to the transport as they are. uvicorn's own path (an ASGI message, a coroutine, a frame object)
costs several times what the kernel takes for the write. Handshake, parsing and ASGI are uvicorn's. The protocol also
serves the application's other WebSocket routes, unchanged.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from webui_adapter.errors import RequestRefused
from webui_adapter.protocol.websocket_frames import PING, PONG_LIMIT
from webui_adapter.protocol.websocket_handshake import refusal
from webui_adapter.settings import GatewaySettings
from webui_adapter.transports.uvicorn_version import accept_close_within_message, check_parts, limit_messages

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

    @property
    def message_limit(self) -> int:
        """The largest message that the client may send now, in bytes."""

    def received(self, frames: int, size: int, waiting: int) -> float | None:
        """Count what the client has sent.

        Args:
            frames: the frames that were parsed.
            size: their bytes.
            waiting: the bytes that are not parsed yet.

        Returns:
            Seconds for which to read nothing; 0: read on; None: read nothing more.
        """

    def shutdown(self) -> None:
        """The server shuts down."""


_NO_HANDSHAKE: Final = RequestRefused(400, "bad_request", "the request is not a WebSocket handshake")
# Bytes of one step of the parser: at most 170 frames, since a client's frame has 6 bytes or more.
_PIECE: Final = 1024
# Bytes that may arrive before the application has answered the handshake.
_EARLY_MAX: Final = 65_536


check_parts(
    WebSocketsSansIOProtocol,
    ("app", "close_sent", "conn", "handshake_complete", "handshake_initiated", "loop", "queue", "read_paused"),
    (
        "handle_close",
        "handle_connect",
        "handle_cont",
        "handle_events",
        "handle_ping",
        "handle_pong",
        "receive",
        "send",
        "send_receive_event_to_app",
        "stop_keepalive",
    ),
)


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket connection."""

    _owner: Owner | None = None
    # uvicorn 0.45 to 0.52.0 has none of these three states; 0.52.1 and newer name theirs otherwise.
    _lost = False
    _ended: asyncio.Event | None = None
    _cut_timer: asyncio.TimerHandle | None = None
    # Bytes that wait: for the application's answer to the handshake, or for their turn.
    _waiting = b""
    _resume: asyncio.Handle | None = None
    _deaf = False
    _frames = 0
    _frames_per_turn = 100

    def data_received(self, data: bytes) -> None:
        """Parse what belongs to the gateway piece by piece, and within its rates.

        Args:
            data: the next bytes.
        """
        if self._deaf:
            return
        if self._owner is not None:
            self._waiting += data
            if self._resume is None:
                self._parse(self._owner)
        elif self.handshake_initiated and not self.handshake_complete:
            # Whose connection this is, and how large a message may be, is known when the application has answered.
            self._waiting += data
            if len(self._waiting) > _EARLY_MAX:
                self.transport.pause_reading()
        else:
            super().data_received(data)
            if not self.handshake_initiated and self.conn.handshake_exc is not None:
                self._refuse_handshake()

    def _refuse_handshake(self) -> None:
        """Answer a request that is no handshake. uvicorn would leave it open."""
        self._deaf = True
        self.transport.write(b"".join(self.conn.data_to_send()) or refusal(_NO_HANDSHAKE))
        self.transport.close()

    def _parse(self, owner: Owner) -> bool:
        """Parse until the turn ends. Returns whether to read on now."""
        limit_messages(self.conn, owner.message_limit)
        self._frames, before = 0, len(self._waiting)
        while self._waiting and self._frames < self._frames_per_turn and not self._deaf:
            piece, self._waiting = self._waiting[:_PIECE], self._waiting[_PIECE:]
            super().data_received(piece)
            if self.conn.parser_exc is not None or self.conn.close_rcvd is not None:
                self._stop_reading()
                return False
        wait = owner.received(self._frames, before - len(self._waiting), len(self._waiting))
        if wait is None:
            self._stop_reading()
            self.transport.pause_reading()
            return False
        if wait or self._waiting:
            self.transport.pause_reading()
            self._resume = self.loop.call_later(wait, self._read_on)
            return False
        return True

    def _stop_reading(self) -> None:
        self._deaf = True
        self._waiting = b""

    def _read_on(self) -> None:
        """Parse what has waited, and read again unless the application has not taken the last message yet."""
        self._resume = None
        read_on = True
        if self._owner is not None:
            read_on = not self._waiting or self._parse(self._owner)
        else:
            waiting, self._waiting = self._waiting, b""
            super().data_received(waiting)
        if read_on and not self.read_paused and not self._lost:
            self.transport.resume_reading()

    async def send(self, message: Any) -> None:
        """Send a message of the application; once it has accepted the handshake, read what came behind it.

        Args:
            message: the ASGI message.
        """
        early = not self.handshake_complete
        await super().send(message)
        if early and self.handshake_complete and self._waiting and self._resume is None:
            self._resume = self.loop.call_soon(self._read_on)

    async def receive(self) -> Any:
        """Return the next message to the application. uvicorn resumes reading here; a pause of ours lasts."""
        message = await super().receive()
        if (self._resume is not None or self._deaf) and not self._lost:
            self.transport.pause_reading()
        return message

    def handle_events(self) -> None:
        """Count the frames, and handle them."""
        self._frames += len(self.conn.events)
        super().handle_events()

    def handle_cont(self, event: Frame) -> None:
        """Drop an empty fragment, which uvicorn would keep until its message ends.

        Args:
            event: the frame.
        """
        super().handle_cont(event)
        if self.frames and not self.frames[-1]:
            self.frames.pop()

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
        if self._resume is not None:
            self._resume.cancel()
        self._waiting = b""
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

    def take_over(self, owner: Owner, settings: GatewaySettings) -> None:
        """Hand the connection to an owner, who pings, writes, and is notified of a full socket and of the shutdown.

        Args:
            owner: the owner.
            settings: the bounds of the gateway, which hold whatever the options of uvicorn say.
        """
        self.stop_keepalive()
        self._owner = owner
        self._frames_per_turn = settings.frames_per_turn
        accept_close_within_message(self.conn)
        self.transport.set_write_buffer_limits(high=settings.write_high)

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
