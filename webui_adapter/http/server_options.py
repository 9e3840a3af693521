"""The options of uvicorn without which a mounted gateway cannot keep all its limits. Its start names them.

The protocol classes set everything else by themselves. Their limits are the gateway's settings, whatever the options of
uvicorn say.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from uvicorn import Server

from webui_adapter.settings import GatewaySettings
from webui_adapter.transports.uvicorn_http import EXTENSION, HttpProtocol
from webui_adapter.transports.uvicorn_websocket import WebSocketProtocol

__all__ = ["ServerOptions"]

log = logging.getLogger(__name__)

_WS: Final = (
    "cannot limit frames and bytes of WebSockets, nor send pings: run uvicorn with "
    "--ws webui_adapter.uvicorn:WebSocketProtocol"
)
_HTTP: Final = (
    "cannot limit the time of a request's head, nor cut an event stream that is not read: run uvicorn with "
    "--http webui_adapter.uvicorn:HttpProtocol"
)


class ServerOptions:
    """Reports missing options, each once.

    Args:
        settings: the bounds of the gateway.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._reported: set[str] = set()

    def apply(self) -> None:
        """Let the protocol class of HTTP follow the settings. A request has no gateway before its head is read."""
        HttpProtocol.head_timeout = self._settings.handshake_timeout
        HttpProtocol.head_limit = self._settings.max_head_size

    def check_server(self, server: Server | None) -> None:
        """Check the options of the server when the gateway starts.

        Args:
            server: the server of this process; None: unknown. Then the first connections show what it offers.
        """
        if server is None:
            return
        config = server.config
        if not _is(config.ws_protocol_class, WebSocketProtocol):
            self._report(_WS)
        if not _is(config.http_protocol_class, HttpProtocol):
            self._report(_HTTP)
        drain = self._settings.drain_spread + self._settings.shutdown_grace
        limit = config.timeout_graceful_shutdown
        if limit is not None and limit <= drain:
            self._report(
                f"cannot give pages {drain:g} s to leave at the shutdown: run uvicorn with "
                "--timeout-graceful-shutdown above WEBUI_DRAIN_SPREAD plus WEBUI_SHUTDOWN_GRACE"
            )

    def check_connection(self, scope: Mapping[str, Any]) -> None:
        """Check what the server offers to a connection.

        Args:
            scope: the ASGI scope of the connection.
        """
        if EXTENSION not in scope.get("extensions", {}):
            self._report(_WS if scope["type"] == "websocket" else _HTTP)

    def _report(self, message: str) -> None:
        if message not in self._reported:
            self._reported.add(message)
            log.warning("%s", message)


def _is(found: object, expected: type) -> bool:
    return isinstance(found, type) and issubclass(found, expected)
