"""The lifetime of a mounted gateway: it starts and ends with the application that includes its router."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from eventbus.bus import Bus
from webui_adapter.gateway.gateway import Gateway
from webui_adapter.http.local_events import local_events_shown
from webui_adapter.http.server_options import ServerOptions
from webui_adapter.http.server_shutdown import drain_with_server, find_server
from webui_adapter.logging_config import redact_uvicorn_logs

__all__ = ["GatewayLifetime"]

log = logging.getLogger(__name__)


class GatewayLifetime:
    """Starts and ends one gateway.

    Args:
        gateway: the gateway.
        bus: returns, when the gateway starts, the bus whose events its sessions receive while Redis is unreachable.
        follow_server: whether to drain when the server shuts down. The stand-alone server drains by itself.
    """

    def __init__(self, gateway: Gateway, bus: Callable[[], Bus | None], *, follow_server: bool) -> None:
        self._gateway = gateway
        self._bus = bus
        self._follow_server = follow_server
        self._options = ServerOptions(gateway.settings)
        self._started = False
        self._endless: contextlib.AbstractAsyncContextManager[None] | None = None

    @contextlib.asynccontextmanager
    async def lifespan(self, _: object) -> AsyncIterator[None]:
        """Run the gateway while the application runs.

        Args:
            _: the application.

        Yields:
            None.
        """
        async with self._running():
            yield

    async def ensure_started(self) -> None:
        """Start the gateway if the application has not run the router's lifespan.

        Starlette runs no lifespan of an application that is mounted in another one. Then no part of the application
        ends the gateway, and it runs until the event loop ends.
        """
        if self._started:
            return
        log.warning(
            "cannot start with the application, because it has not run the lifespan of the gateway's router; "
            "starting with the first request. Include gateway_router() in the outermost application"
        )
        # Kept, since a generator that is collected runs its end.
        self._endless = self._running()
        await self._endless.__aenter__()

    def check_connection(self, scope: Mapping[str, Any]) -> None:
        """Report an option of the server that is missing, which a connection shows.

        Args:
            scope: the ASGI scope of the connection.
        """
        if self._follow_server:
            self._options.check_connection(scope)

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        self._started = True
        redact_uvicorn_logs()
        following: asyncio.Task[None] | None = None
        await self._gateway.start()
        if self._follow_server:
            self._options.apply()
            self._options.check_server(find_server())
            following = asyncio.create_task(drain_with_server(self._gateway.drain))
        try:
            with local_events_shown(self._gateway, self._bus()):
                yield
        finally:
            if following is not None:
                following.cancel()
            await self._gateway.aclose()
