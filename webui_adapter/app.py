"""The stand-alone gateway: an application and a server that drains before it ends."""

from __future__ import annotations

import asyncio
import gc
import math
import signal
import socket
from importlib import import_module
from types import FrameType
from typing import cast

import uvicorn
from fastapi import FastAPI

from eventbus.settings import BusSettings
from webui_adapter.errors import NotConfigured
from webui_adapter.gateway.build import connect_gateway
from webui_adapter.gateway.gateway import Gateway
from webui_adapter.http.route import answer_unknown_path
from webui_adapter.http.router import routes
from webui_adapter.logging_config import configure_logging
from webui_adapter.settings import GatewaySettings, read_settings
from webui_adapter.transports.protocol_switch import make_protocol_switch

__all__ = ["create_app", "create_server", "serve"]


def create_app(settings: GatewaySettings | None = None, bus_settings: BusSettings | None = None) -> FastAPI:
    """Create an application that is only the gateway.

    Args:
        settings: bounds and choices; default: read from the environment.
        bus_settings: the address of Redis; default: read from the environment.

    Returns:
        The application.

    Raises:
        NotConfigured: a setting names something that does not exist or does not work.
    """
    settings = settings or read_settings(GatewaySettings)
    return _application(_load(settings, bus_settings), bus_settings)


def _load(settings: GatewaySettings, bus_settings: BusSettings | None = None) -> Gateway:
    for module in settings.events:
        try:
            import_module(module)
        except ImportError as error:
            raise NotConfigured(f"cannot import {module!r} of WEBUI_EVENTS: {error}") from error
    return connect_gateway(settings, bus_settings)


def _application(gateway: Gateway, bus_settings: BusSettings | None = None) -> FastAPI:
    app = FastAPI(title="Event bus gateway", docs_url=None, redoc_url=None, openapi_url=None)
    for status in (404, 405):
        app.add_exception_handler(status, answer_unknown_path)
    app.include_router(routes(gateway, admin=bus_settings or read_settings(BusSettings), follow_server=False))
    return app


def serve(settings: GatewaySettings) -> None:
    """Run the gateway until SIGTERM or SIGINT.

    Args:
        settings: bounds and choices.

    Raises:
        NotConfigured: a setting names something that does not exist or does not work.
    """
    configure_logging(settings.log_level)
    create_server(_load(settings)).run()


def create_server(gateway: Gateway) -> uvicorn.Server:
    """Create the server of a stand-alone gateway, which drains the gateway before it ends.

    Args:
        gateway: the gateway, not started.

    Returns:
        The server.
    """
    settings = gateway.settings
    config = uvicorn.Config(
        _application(gateway),
        host=settings.host,
        port=settings.port,
        # uvicorn annotates a class, but calls it as a factory.
        http=cast("type[asyncio.Protocol]", make_protocol_switch(gateway)),
        ws="webui_adapter.uvicorn:WebSocketProtocol",
        ws_max_size=settings.max_command_size,
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        log_config=None,
        access_log=False,
        server_header=False,
        # WEBUI_TRUSTED_PROXIES decides whose X-Forwarded-For counts. uvicorn would replace the address of the peer.
        proxy_headers=False,
        timeout_graceful_shutdown=math.ceil(settings.close_timeout) + 1,
        backlog=4096,
    )
    return _Server(config, gateway)


class _Server(uvicorn.Server):
    """uvicorn's server. It drains the gateway first; a second signal ends it immediately, without a traceback."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        super().__init__(config)
        self._gateway = gateway

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and tune the garbage collector.

        Modules and classes live forever, so the collector need not visit them. Connections create many objects, which
        hardly ever become garbage in cycles. Without both settings the collector took up to a quarter of the time to
        open 10,000 connections.
        """
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        gc.set_threshold(self._gateway.settings.gc_threshold, 20, 50)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain the sessions before uvicorn closes its port and all connections; /readyz says so meanwhile."""
        draining = asyncio.create_task(self._gateway.drain.run())
        while not draining.done() and not self.force_exit:
            await asyncio.wait([draining], timeout=0.1)
        if self.force_exit:
            draining.cancel()
            for connection in list(self.server_state.connections):
                connection.transport.abort()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
        super().handle_exit(sig if sig != signal.SIGINT else signal.SIGTERM, frame)
