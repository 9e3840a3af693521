"""A WebSocket on a plain asyncio connection: one small object, which is also the session's transport.

uvicorn, ASGI and websockets keep a task, a queue, a parser and a request for each connection. That costs 20 KB and a
millisecond, and a client that only receives events needs none of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableSet

from webui_adapter.access.inbound_limit import InboundLimit
from webui_adapter.gateway.gateway import Gateway
from webui_adapter.protocol.websocket_frames import PING, PONG_LIMIT, close_frame, pong_frame
from webui_adapter.protocol.websocket_parser import (
    NO_CODE,
    Closing,
    Event,
    Message,
    PingFrame,
    PongFrame,
    Unfinished,
    Violation,
    read_frames,
)
from webui_adapter.session.session import Session
from webui_adapter.transports.access import AcceptedHandshake
from webui_adapter.transports.backpressure import count_inbound, message_limit, write_queued
from webui_adapter.transports.encoders import FRAME_ENCODER

__all__ = ["DirectConnection"]


class DirectConnection(asyncio.Protocol):
    """One connection after its handshake.

    Args:
        gateway: the gateway.
        transport: the asyncio transport.
        connections: the connections that the server waits for when it ends.
    """

    __slots__ = (
        "_closing",
        "_connections",
        "_deadline",
        "_gateway",
        "_inbound",
        "_resume",
        "_session",
        "_unfinished",
        "transport",
    )

    def __init__(self, gateway: Gateway, transport: asyncio.Transport, connections: MutableSet[object]) -> None:
        self._gateway = gateway
        self._connections = connections
        self._session: Session | None = None
        self._unfinished: Unfinished | None = None
        # A close frame was sent or received. No frame may follow.
        self._closing = False
        self._deadline: asyncio.TimerHandle | None = None
        self._inbound = InboundLimit(gateway.settings, gateway.clock.now())
        # Reading is paused until this call.
        self._resume: asyncio.Handle | None = None
        self.transport = transport

    def begin(self, accepted: AcceptedHandshake, acceptance: bytes, early: bytes) -> None:
        """Answer the handshake and open the session.

        Args:
            accepted: what the handshake says about the session.
            acceptance: the answer.
            early: bytes that arrived with the request.
        """
        gateway, transport = self._gateway, self.transport
        transport.set_protocol(self)
        transport.set_write_buffer_limits(high=gateway.settings.write_high)
        self._connections.add(self)
        transport.write(acceptance)
        session = self._session = gateway.connect(FRAME_ENCODER, accepted.client)
        gateway.attach_transport(session, self)
        gateway.authentication.begin(session, accepted.credentials, accepted.cursor, accepted.topics)
        gateway.flush()
        if early:
            self.data_received(early)

    # --- in --------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse frames, answer pings, and hand commands to the gateway.

        Args:
            data: the next bytes.
        """
        session = self._session
        if session is None:
            # The client has closed the connection or violated the protocol. All that it still sends is dropped.
            if self._inbound.charge(1, len(data), self._gateway.clock.now(), known=False):
                self.transport.pause_reading()
        elif self._resume is not None:
            # The transport had read this before it was paused.
            self._unfinished = self._unfinished or Unfinished()
            self._unfinished.rest += data
        else:
            self._parse(session, data)

    def _parse(self, session: Session, data: bytes) -> None:
        settings = self._gateway.settings
        events, self._unfinished, frames = read_frames(
            data, self._unfinished, message_limit(settings, session), settings.frames_per_turn
        )
        self._answer_pings(events)
        for event in events:
            self._take(event)
        waiting = 0 if self._unfinished is None else len(self._unfinished.rest)
        wait = count_inbound(self._gateway, session, self._inbound, frames, len(data), waiting)
        if self._session is None:
            return
        if wait is None:
            # The close frame is on its way. Nothing more is read, and the deadline cuts the connection.
            self._unfinished = None
            self._resume = None
            self.transport.pause_reading()
            self._session = None
            self._gateway.disconnect(session, session.output.close_code or 1006)
        elif wait or frames == settings.frames_per_turn:
            self.transport.pause_reading()
            self._resume = asyncio.get_running_loop().call_later(wait, self._read_on)

    def _read_on(self) -> None:
        """Parse what has waited, and read again."""
        self._resume = None
        session = self._session
        if session is None:
            return
        if self._unfinished is not None and self._unfinished.rest:
            self._parse(session, b"")
        if self._session is not None and self._resume is None:
            self.transport.resume_reading()

    def _answer_pings(self, events: list[Event]) -> None:
        pongs = [pong_frame(event.payload) for event in events if isinstance(event, PingFrame)]
        if pongs and not self._closing:
            if self.transport.get_write_buffer_size() > PONG_LIMIT:
                # The client sends pings but reads nothing. The answers would use up the memory.
                self.transport.abort()
            else:
                self.transport.write(b"".join(pongs))

    def _take(self, event: Event) -> None:
        session = self._session
        if session is None:
            return
        match event:
            case Message(data) if session.output.close_code is None:
                command = session.receive(data)
                if command is None:
                    self._gateway.flush()
                else:
                    self._gateway.handle(session, command)
            case PongFrame():
                session.pong()
            case Closing(code, _):
                self._answer_close(code)
            case Violation(code, reason):
                self._fail(code, reason)

    def _answer_close(self, code: int) -> None:
        if not self._closing:
            self._closing = True
            self.transport.write(close_frame(None if code == NO_CODE else code, ""))
        self._leave(code)
        self._cut_later()
        self.transport.close()

    def _fail(self, code: int, reason: str) -> None:
        if not self._closing:
            self._closing = True
            self.transport.write(close_frame(code, reason))
        self._leave(code)
        self._cut_later()
        # A close with unread bytes resets the connection, and the client would lose the code.
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def eof_received(self) -> None:
        """Let the transport close itself."""

    def connection_lost(self, _: Exception | None) -> None:
        """End the session."""
        self._connections.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        self._leave(1006)

    def _leave(self, code: int) -> None:
        session, self._session = self._session, None
        self._unfinished = None
        if session is not None:
            self._gateway.disconnect(session, code)

    def _cut_later(self) -> None:
        """Cut the connection of a client that does not read or answer the close frame."""
        if self._deadline is None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(self._gateway.settings.close_timeout, self.transport.abort)

    # --- out -------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write what the session has queued, and the close frame if the session asks for it."""
        session = self._session
        if session is None:
            return
        output = session.output
        out = output.out
        if out:
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            if not self._closing:
                self.transport.write(data)
        if output.close_code is not None and not self._closing:
            self._closing = True
            self.transport.write(close_frame(output.close_code, output.close_reason))
            self._cut_later()

    def ping(self) -> None:
        """Send a ping."""
        if not self._closing:
            self.transport.write(PING)

    def cut(self) -> None:
        """End the connection without waiting for the client."""
        self.transport.abort()

    def pause_writing(self) -> None:
        """Queue from now on: the socket is full."""
        if self._session is not None:
            self._session.output.pause_writing()

    def resume_writing(self) -> None:
        """Write the queue: the socket accepts bytes again."""
        if self._session is not None:
            write_queued(self._session, self, self._gateway.settings.write_high)

    def shutdown(self) -> None:
        """Drain the gateway: the server shuts down, and each session ends at its own time."""
        self._gateway.drain.start()
