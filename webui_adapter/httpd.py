"""uvicorn's HTTP protocol, which lets a stream of ours be cut: ``--http webui_adapter.httpd:EventBusHttpProtocol``.

ASGI has no word for ending a response whose reader takes nothing: the send waits, and so does the server for its
buffer to empty. Nor does uvicorn mind a request whose head never ends: here it has its time. All else stays uvicorn's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from webui_adapter.errors import HandshakeRefused
from webui_adapter.handshake import Request, headers_of, is_upgrade, refusal

__all__ = ["EXTENSION", "TOO_SLOW", "EventBusHttpProtocol", "refuse"]

log = logging.getLogger(__name__)

EXTENSION: Final = "eventbus"
"""Where in the ASGI scope's ``extensions`` the protocol offers itself."""


TOO_SLOW: Final = "the head of the request did not come in time"


def refuse(transport: asyncio.Transport, asked: str, error: HandshakeRefused) -> None:
    """Answer a request that is not served, and end its connection. ``asked`` is for the log, which redacts tokens."""
    log.info('%s - "WebSocket %s" %d: %s', transport.get_extra_info("peername"), asked, error.status, error)
    transport.write(refusal(error))
    transport.close()


class EventBusHttpProtocol(HttpToolsProtocol):
    """One connection.

    Attributes:
        head_timeout: seconds for the head of each request.
        upgrade: takes a handshake over, if it is one of ours, and says whether it did.
    """

    head_timeout = 10.0
    upgrade: Callable[[Request], bool] | None = None
    _on_shutdown: Callable[[], None] | None = None
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """See uvicorn; from now on the first head is waited for."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """See uvicorn."""
        self._head_is_here()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begin a request, and offer ourselves to the application."""
        super().on_message_begin()
        self.scope.setdefault("extensions", {})[EXTENSION] = {"protocol": self}
        self._await_head()

    def on_headers_complete(self) -> None:
        """See uvicorn."""
        self._head_is_here()
        super().on_headers_complete()

    def handle_websocket_upgrade(self) -> None:
        """See uvicorn; a handshake of ours comes here on a connection that was used before, and is answered by us."""
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
        except HandshakeRefused as error:
            refuse(self.transport, self.url.decode("latin-1"), error)

    def _await_head(self) -> None:
        self._head_is_here()
        self._deadline = self.loop.call_later(self.head_timeout, self._too_slow)

    def _head_is_here(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        # Annotated as being there always; they come with the first request.
        scope, cycle = cast("Any", self.scope), cast("Any", self.cycle)
        if scope is not None and (cycle is None or cycle.response_complete):
            refuse(self.transport, self.url.decode("latin-1"), HandshakeRefused(408, TOO_SLOW))
        else:
            self.transport.close()

    def take_over(self, on_shutdown: Callable[[], None]) -> Callable[[], None]:
        """The response is a stream: its owner hears that the server is leaving, and gets the way to cut it."""
        self._on_shutdown = on_shutdown
        return self.cut

    def cut(self) -> None:
        """End the connection at once; what is unsent is lost."""
        self.transport.abort()

    def shutdown(self) -> None:
        """See uvicorn, which would wait for the stream to end by itself."""
        super().shutdown()
        if self._on_shutdown is not None:
            self._on_shutdown()
