"""The stand-alone gateway: an application and a server that drains before it ends."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import signal
import socket
from importlib import import_module
from types import FrameType
from typing import Final, cast

import uvicorn
from fastapi import FastAPI

from eventbus.settings import BusSettings
from webui_adapter.errors import NotConfigured
from webui_adapter.gateway.build import connect_gateway
from webui_adapter.gateway.gateway import Gateway
from webui_adapter.http.route import answer_unknown_path
from webui_adapter.http.router import routes
from webui_adapter.logging_config import configure_logging
from webui_adapter.monitoring.probes import answers_to_siblings
from webui_adapter.settings import GatewaySettings, read_settings
from webui_adapter.transports.protocol_switch import make_protocol_switch
from webui_adapter.workers.place import WorkerPlace
from webui_adapter.workers.siblings import Siblings
from webui_adapter.workers.supervisor import BACKLOG, Supervisor, worker_command

log = logging.getLogger(__name__)

_CANNOT_LISTEN: Final = 3  # uvicorn's exit code

__all__ = ["create_app", "create_server", "serve", "supervise"]


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


def _application(
    gateway: Gateway, bus_settings: BusSettings | None = None, siblings: Siblings | None = None
) -> FastAPI:
    app = FastAPI(title="Event bus gateway", docs_url=None, redoc_url=None, openapi_url=None)
    for status in (404, 405):
        app.add_exception_handler(status, answer_unknown_path)
    admin = bus_settings or read_settings(BusSettings)
    app.include_router(routes(gateway, admin=admin, follow_server=False, siblings=siblings))
    return app


def serve(settings: GatewaySettings, place: WorkerPlace | None = None) -> None:
    """Run the gateway until SIGTERM or SIGINT.

    Args:
        settings: bounds and choices.
        place: the place of this worker among others; None: it is the only process.

    Raises:
        NotConfigured: a setting names something that does not exist or does not work.
    """
    configure_logging(settings.log_level)
    gateway = _load(settings)
    if place is None:
        create_server(gateway).run()
    else:
        create_server(gateway, place).run([place.listen()])


def create_server(gateway: Gateway, place: WorkerPlace | None = None) -> uvicorn.Server:
    """Create the server of a stand-alone gateway, which drains the gateway before it ends.

    Args:
        gateway: the gateway, not started.
        place: the place of this worker among others; None: it is the only process.

    Returns:
        The server.
    """
    settings = gateway.settings
    siblings = None if place is None else Siblings(place, answers_to_siblings(gateway))
    config = uvicorn.Config(
        _application(gateway, siblings=siblings),
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
        backlog=BACKLOG,
    )
    if place is None or siblings is None:
        return _Server(config, gateway)
    return _Worker(config, gateway, place, siblings)


def supervise(settings: GatewaySettings) -> int:
    """Run several workers that share a port, until SIGTERM or SIGINT.

    Args:
        settings: bounds and choices, with the number of workers.

    Returns:
        The exit code.
    """
    configure_logging(settings.log_level)
    try:
        return asyncio.run(Supervisor(settings, worker_command).run())
    except OSError as error:
        host, port = settings.host, settings.port
        log.error("cannot listen on %s port %d (WEBUI_HOST, WEBUI_PORT): %s", host, port, error)  # noqa: TRY400
        return _CANNOT_LISTEN


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


class _Worker(_Server):
    """One of several servers on a port. It ends with its supervisor, also if that one is killed."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway, place: WorkerPlace, siblings: Siblings) -> None:
        super().__init__(config, gateway)
        self._place = place
        self._siblings = siblings

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, answer the other workers, and watch the supervisor."""
        await self._siblings.start()
        asyncio.get_running_loop().add_reader(self._place.lifeline, self._supervisor_ended)
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then leave the other workers."""
        await super().shutdown(sockets)
        await self._siblings.aclose()

    def _supervisor_ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._place.lifeline)
        self.should_exit = True
