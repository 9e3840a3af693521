"""uvicorn's HTTP protocol, which lets a stream of ours be cut: ``--http webui_adapter.httpd:EventBusHttpProtocol``.

ASGI has no word for ending a response whose reader takes nothing: the send waits, and so does the server for its
buffer to empty. All else stays uvicorn's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["EXTENSION", "EventBusHttpProtocol"]

EXTENSION: Final = "eventbus"
"""Where in the ASGI scope's ``extensions`` the protocol offers itself."""


class EventBusHttpProtocol(HttpToolsProtocol):
    """One connection."""

    _on_shutdown: Callable[[], None] | None = None

    def on_message_begin(self) -> None:
        """Begin a request, and offer ourselves to the application."""
        super().on_message_begin()
        self.scope.setdefault("extensions", {})[EXTENSION] = {"protocol": self}

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
