"""uvicorn's HTTP protocol with time limits and streams that can be cut: ``--http webui_adapter.uvicorn:HttpProtocol``.

ASGI cannot end a response whose client reads nothing: the send waits, and the server waits for its buffer to empty.
Nor does uvicorn limit a request that never ends. Here a request's head has a time limit and a size limit. On the
stand-alone gateway its body has a time limit. Everything else is uvicorn's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from webui_adapter.errors import RequestRefused
from webui_adapter.protocol.websocket_handshake import Request, headers_of, is_upgrade, refusal
from webui_adapter.transports.uvicorn_version import check_parts

__all__ = ["EXTENSION", "TOO_SLOW", "HttpProtocol", "refuse"]

log = logging.getLogger(__name__)

EXTENSION: Final = "eventbus"
"""The key of this protocol in the ``extensions`` of the ASGI scope."""


TOO_SLOW: Final = "the head of the request took too long"
_TOO_SLOW_A_BODY: Final = "the body of the request took too long"


def refuse(transport: asyncio.Transport, asked: str, error: RequestRefused) -> None:
    """Answer a refused request, and close the connection.

    Args:
        transport: the connection.
        asked: the request's target, for the log, which redacts tokens.
        error: the refusal.
    """
    log.info('%s - "WebSocket %s" %d: %s', transport.get_extra_info("peername"), asked, error.status, error)
    transport.write(refusal(error))
    transport.close()


check_parts(
    HttpToolsProtocol,
    ("connections", "cycle", "headers", "loop", "pipeline", "scope", "transport"),
    (
        "handle_websocket_upgrade",
        "on_headers_complete",
        "on_message_begin",
        "on_message_complete",
        "on_url",
        "shutdown",
    ),
)


class HttpProtocol(HttpToolsProtocol):
    """One HTTP connection.

    Attributes:
        head_timeout: seconds for the head of each request.
        head_limit: largest head, in bytes.
        body_timeout: seconds for the body; None: no limit, since an application may accept uploads.
        upgrade: takes over a handshake of the gateway, and returns whether it did.
        on_lost: called when the connection has ended, or has become a session.
    """

    head_timeout = 10.0
    head_limit = 65_536
    body_timeout: float | None = None
    upgrade: Callable[[Request], bool] | None = None
    on_lost: Callable[[], None] | None = None
    _on_shutdown: Callable[[], None] | None = None
    _deadline: asyncio.TimerHandle | None = None
    _head_bytes: int | None = 0
    _deaf = False

    def connection_made(self, transport: Any) -> None:
        """Wait for the first head.

        Args:
            transport: the connection.
        """
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting.

        Args:
            exc: why the connection ended.
        """
        self._stop_waiting()
        self._leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse the bytes, and limit the size of a head, which uvicorn's parser collects without a limit.

        Args:
            data: the next bytes.
        """
        if self._deaf:
            return
        begun = self._head_bytes is not None
        super().data_received(data)
        if self._head_bytes is None or not begun:
            return
        self._head_bytes += len(data)
        if self._head_bytes > self.head_limit and not self.transport.is_closing():
            self._stop_waiting()
            self._refuse(RequestRefused(431, "too_large", f"the head of a request has at most {self.head_limit} bytes"))

    def on_message_begin(self) -> None:
        """Begin a request, and offer this protocol to the application."""
        super().on_message_begin()
        self.scope.setdefault("extensions", {})[EXTENSION] = {"protocol": self}
        self._await_head()

    def on_headers_complete(self) -> None:
        """End the head, and limit the time of the body."""
        self._head_bytes = None
        self._stop_waiting()
        if self.body_timeout is not None:
            self._deadline = self.loop.call_later(self.body_timeout, self._body_too_slow)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End the body."""
        self._stop_waiting()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """Answer a handshake of the gateway on a connection that was used before."""
        self._stop_waiting()
        cycle = cast("Any", self.cycle)
        if cycle is not None and not cycle.response_complete:
            # Its answer would come among the frames. The connection ends with that answer.
            log.info("cannot take over %s as a WebSocket: the request before it has no answer yet", self.client)
            self._deaf = True
            cycle.keep_alive = False
            return
        self._leave()
        if self.upgrade is None:
            super().handle_websocket_upgrade()
            return
        try:
            headers = headers_of((name.decode("latin-1"), value.decode("latin-1")) for name, value in self.headers)
            request = Request(self.url.decode("latin-1"), headers)
            if is_upgrade(request) and self.scope["method"] == "GET" and self.upgrade(request):
                self.connections.discard(self)
            else:
                super().handle_websocket_upgrade()
        except RequestRefused as error:
            refuse(self.transport, self.url.decode("latin-1"), error)

    def _leave(self) -> None:
        on_lost, self.on_lost = self.on_lost, None
        if on_lost is not None:
            on_lost()

    def _await_head(self) -> None:
        self._stop_waiting()
        self._head_bytes = 0
        self._deadline = self.loop.call_later(self.head_timeout, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._refuse(RequestRefused(408, "timeout", TOO_SLOW))

    def _body_too_slow(self) -> None:
        if self.cycle.response_started or self.pipeline:
            self.transport.close()
        else:
            refuse(self.transport, self.url.decode("latin-1"), RequestRefused(408, "timeout", _TOO_SLOW_A_BODY))

    def _refuse(self, error: RequestRefused) -> None:
        """Answer with the refusal, unless another answer is under way or the client has asked for nothing."""
        # uvicorn sets both with the first request.
        scope, cycle = cast("Any", self.scope), cast("Any", self.cycle)
        if scope is not None and (cycle is None or cycle.response_complete):
            refuse(self.transport, self.url.decode("latin-1"), error)
        else:
            self.transport.close()

    def take_over(self, on_shutdown: Callable[[], None]) -> Callable[[], None]:
        """Let the owner of a stream cut it.

        Args:
            on_shutdown: called when the server shuts down.

        Returns:
            A function that ends the connection.
        """
        self._on_shutdown = on_shutdown
        return self.cut

    def cut(self) -> None:
        """End the connection; unsent bytes are lost."""
        self.transport.abort()

    def shutdown(self) -> None:
        """Notify the owner of the stream. uvicorn alone would wait for the stream to end."""
        super().shutdown()
        if self._on_shutdown is not None:
            self._on_shutdown()
