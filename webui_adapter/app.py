"""The stand-alone gateway."""

from __future__ import annotations

import signal
from importlib import import_module
from types import FrameType

import uvicorn
from fastapi import FastAPI

from eventbus.settings import BusSettings
from webui_adapter.errors import NotConfigured
from webui_adapter.logs import configure_logs
from webui_adapter.router import gateway_router
from webui_adapter.settings import GatewaySettings

__all__ = ["create_app", "serve"]


def create_app(settings: GatewaySettings | None = None, bus_settings: BusSettings | None = None) -> FastAPI:
    """An application that is nothing but the gateway."""
    settings = settings or GatewaySettings()
    for module in settings.events:
        try:
            import_module(module)
        except ImportError as error:
            raise NotConfigured(f"WEBUI_EVENTS names {module!r}, which cannot be imported: {error}") from error
    app = FastAPI(title="Event bus gateway", docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(gateway_router(settings, bus_settings))
    return app


def serve(settings: GatewaySettings) -> None:
    """Run until SIGTERM or SIGINT."""
    configure_logs(settings.log_level)
    config = uvicorn.Config(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        ws="webui_adapter.ws:EventBusWebSocketProtocol",
        ws_max_size=settings.max_command_size,
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, int(settings.shutdown_grace)),
        backlog=4096,
    )
    _Server(config).run()


class _Server(uvicorn.Server):
    """uvicorn, but a second signal ends it at once without a traceback."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
        super().handle_exit(sig if sig != signal.SIGINT else signal.SIGTERM, frame)
