"""A WebSocket without a server framework in between: one small object per connection, which is the session's line.

uvicorn, ASGI and websockets keep a task, a queue, a parser and a request for each connection: 20 KB and a millisecond
that nobody needs who only waits for events. Here nothing exists that an idle connection does not use.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableSet

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
from webui_adapter.transports.backpressure import write_queued
from webui_adapter.transports.encoders import FRAME_ENCODER

__all__ = ["DirectConnection"]


class DirectConnection(asyncio.Protocol):
    """One connection after its handshake. See ``Transport`` for ``flush``, ``ping``, ``cut``.

    Attributes:
        transport: what uvicorn aborts when it is told to end at once.
    """

    __slots__ = ("_connections", "_deadline", "_gateway", "_going", "_session", "_unfinished", "transport")

    def __init__(self, gateway: Gateway, transport: asyncio.Transport, connections: MutableSet[object]) -> None:
        """``connections`` are those that the server waits for when it ends."""
        self._gateway = gateway
        self._connections = connections
        self._session: Session | None = None
        self._unfinished: Unfinished | None = None
        # Our close frame is out, or the peer's has come: no frame may follow.
        self._going = False
        self._deadline: asyncio.TimerHandle | None = None
        self.transport = transport

    def begin(self, accepted: AcceptedHandshake, acceptance: bytes, early: bytes) -> None:
        """Answer the handshake and start the session; ``early`` is what came right behind the request."""
        gateway, transport = self._gateway, self.transport
        transport.set_protocol(self)
        transport.set_write_buffer_limits(high=gateway.settings.write_high)
        self._connections.add(self)
        transport.write(acceptance)
        session = self._session = gateway.connect(FRAME_ENCODER)
        gateway.attach_transport(session, self)
        if accepted.token is not None:
            gateway.authenticate(session, accepted.token, accepted.cursor, accepted.topics)
            gateway.flush()
        if early:
            self.data_received(early)

    # --- in --------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        if self._session is None:
            return  # the peer has said its last word, or broken the rules
        events, self._unfinished = read_frames(data, self._unfinished, self._gateway.settings.max_command_size)
        pongs = [pong_frame(event.payload) for event in events if isinstance(event, PingFrame)]
        if pongs and not self._going:
            if self.transport.get_write_buffer_size() > PONG_LIMIT:
                # It pings without ever reading: the answers would fill the memory.
                self.transport.abort()
                return
            self.transport.write(b"".join(pongs))
        for event in events:
            self._take(event)

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
        if not self._going:
            self._going = True
            self.transport.write(close_frame(None if code == NO_CODE else code, ""))
        self._leave(code)
        self._cut_later()
        self.transport.close()

    def _fail(self, code: int, reason: str) -> None:
        if not self._going:
            self._going = True
            self.transport.write(close_frame(code, reason))
        self._leave(code)
        self._cut_later()
        # Not closed: with something of the peer's unread that would be a reset, and the code be lost.
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def eof_received(self) -> None:
        """See ``asyncio.Protocol``: the transport closes itself."""

    def connection_lost(self, _: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        self._connections.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._leave(1006)

    def _leave(self, code: int) -> None:
        session, self._session = self._session, None
        self._unfinished = None
        if session is not None:
            self._gateway.disconnect(session, code)

    def _cut_later(self) -> None:
        """A peer that does not read its end, or does not answer it, shall not hold the socket."""
        if self._deadline is None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(self._gateway.settings.close_timeout, self.transport.abort)

    # --- out -------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """See ``Transport``."""
        session = self._session
        if session is None:
            return
        output = session.output
        out = output.out
        if out:
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            if not self._going:
                self.transport.write(data)
        if output.close_code is not None and not self._going:
            self._going = True
            self.transport.write(close_frame(output.close_code, output.close_reason))
            self._cut_later()

    def ping(self) -> None:
        """See ``Transport``."""
        if not self._going:
            self.transport.write(PING)

    def cut(self) -> None:
        """See ``Transport``."""
        self.transport.abort()

    def pause_writing(self) -> None:
        """See ``asyncio.Protocol``."""
        if self._session is not None:
            self._session.output.pause_writing()

    def resume_writing(self) -> None:
        """See ``asyncio.Protocol``."""
        if self._session is not None:
            write_queued(self._session, self, self._gateway.settings.write_high)

    def shutdown(self) -> None:
        """The server is leaving: the gateway lets its sessions go one by one, with a code of ours."""
        self._gateway.drain.start()
