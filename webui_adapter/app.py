"""The stand-alone gateway."""

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
from webui_adapter.http.router import routes
from webui_adapter.logging_config import configure_logging
from webui_adapter.settings import GatewaySettings
from webui_adapter.transports.protocol_switch import make_protocol_switch

__all__ = ["create_app", "serve"]


def create_app(settings: GatewaySettings | None = None, bus_settings: BusSettings | None = None) -> FastAPI:
    """An application that is nothing but the gateway."""
    settings = settings or GatewaySettings()
    return _application(_load(settings, bus_settings), bus_settings)


def _load(settings: GatewaySettings, bus_settings: BusSettings | None = None) -> Gateway:
    for module in settings.events:
        try:
            import_module(module)
        except ImportError as error:
            raise NotConfigured(f"WEBUI_EVENTS names {module!r}, which cannot be imported: {error}") from error
    return connect_gateway(settings, bus_settings)


def _application(gateway: Gateway, bus_settings: BusSettings | None = None) -> FastAPI:
    app = FastAPI(title="Event bus gateway", docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(routes(gateway, admin=bus_settings or BusSettings()))
    return app


def serve(settings: GatewaySettings) -> None:
    """Run until SIGTERM or SIGINT."""
    configure_logging(settings.log_level)
    gateway = _load(settings)
    config = uvicorn.Config(
        _application(gateway),
        host=settings.host,
        port=settings.port,
        # Annotated as a class; called as a factory.
        http=cast("type[asyncio.Protocol]", make_protocol_switch(gateway)),
        ws="webui_adapter.uvicorn:WebSocketProtocol",
        ws_max_size=settings.max_command_size,
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.close_timeout) + 1,
        backlog=4096,
    )
    _Server(config, gateway).run()


class _Server(uvicorn.Server):
    """uvicorn, but it leaves in good order, and a second signal ends it at once without a traceback."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        super().__init__(config)
        self._gateway = gateway

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and tune the garbage collector for what comes.

        Modules and classes live for ever and need not be looked at again. And the objects of connections are made in
        great number and hardly ever become garbage in cycles: without both the collector took up to a quarter of the
        time of opening 10,000 connections.
        """
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        gc.set_threshold(self._gateway.settings.gc_threshold, 20, 50)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let the sessions go first: uvicorn would close its port, so that nobody hears "not ready", and then all."""
        leaving = asyncio.create_task(self._gateway.drain.run())
        while not leaving.done() and not self.force_exit:
            await asyncio.wait([leaving], timeout=0.1)
        if self.force_exit:
            leaving.cancel()
            for connection in list(self.server_state.connections):
                connection.transport.abort()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
        super().handle_exit(sig if sig != signal.SIGINT else signal.SIGTERM, frame)
