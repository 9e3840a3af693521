"""The routes of a gateway, for an existing FastAPI application or for the stand-alone one."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Request, Response, WebSocket

from eventbus.backends.memory.adapters import MemoryBroker
from eventbus.bus import Bus
from eventbus.process_bus import default_bus
from eventbus.settings import BusSettings
from webui_adapter.access.authenticator import Authenticate
from webui_adapter.access.authoriser import Authoriser
from webui_adapter.gateway.build import connect_gateway
from webui_adapter.gateway.gateway import Gateway
from webui_adapter.http.admin.sessions import session_routes
from webui_adapter.http.client_files import add_client_files
from webui_adapter.http.dead_letters import dead_letter_routes
from webui_adapter.http.lifetime import GatewayLifetime
from webui_adapter.http.operations import operation_routes
from webui_adapter.http.route import HardenedRoute
from webui_adapter.http.tickets import ticket_routes
from webui_adapter.monitoring.probes import add_probes
from webui_adapter.settings import GatewaySettings, read_settings
from webui_adapter.transports.access import preflight
from webui_adapter.transports.sse import serve_command, serve_sse
from webui_adapter.transports.websocket_asgi import serve_websocket
from webui_adapter.workers.siblings import Siblings

__all__ = ["gateway_router", "routes"]


def gateway_router(
    settings: GatewaySettings | None = None,
    bus_settings: BusSettings | None = None,
    *,
    authoriser: Authoriser | None = None,
    authenticate: Authenticate | None = None,
    broker: MemoryBroker | None = None,
    bus: Bus | None = None,
    probes: bool = True,
) -> APIRouter:
    """Create a router with a gateway that starts and ends with the application.

    ``app.include_router(gateway_router())`` is enough. Run the application with ``--ws
    webui_adapter.uvicorn:WebSocketProtocol`` for the shorter path to the socket, and with ``--http
    webui_adapter.uvicorn:HttpProtocol``, so that event streams can be cut if their client reads nothing.
    ``--timeout-graceful-shutdown`` must exceed ``drain_spread`` plus ``shutdown_grace``.

    Args:
        settings: bounds and choices of the gateway; default: read from the environment.
        bus_settings: the address of Redis; default: read from the environment.
        authoriser: decides who may read which collection; default: the one that ``settings`` names.
        authenticate: says who connects; default: the function that ``settings`` names, if any, otherwise JWTs.
        broker: keeps everything in this process instead of in Redis.
        bus: the bus whose events the pages receive directly while Redis is unreachable; default: the bus of this
            process, if it has the same Redis and key prefix.
        probes: whether to add ``/healthz``, ``/readyz`` and ``/metrics``.

    Returns:
        The router.

    Raises:
        NotConfigured: a setting names something that does not exist or does not work.
    """
    bus_settings = bus_settings or read_settings(BusSettings)
    gateway = connect_gateway(settings, bus_settings, authoriser=authoriser, authenticate=authenticate, broker=broker)

    def own_bus() -> Bus | None:
        # Called when the application starts: by then it has called configure(), if it ever does.
        return bus or (None if broker is not None else _matching_default_bus(bus_settings))

    admin = None if broker is not None else bus_settings
    return routes(gateway, probes=probes, bus=own_bus, admin=admin)


def _matching_default_bus(settings: BusSettings) -> Bus | None:
    """Return the bus of this process if the gateway reads what the bus publishes."""
    bus = default_bus()
    here = (bus.settings.redis_url, bus.settings.key_prefix)
    return bus if here == (settings.redis_url, settings.key_prefix) else None


def routes(
    gateway: Gateway,
    *,
    probes: bool = True,
    bus: Callable[[], Bus | None] = lambda: None,
    admin: BusSettings | None = None,
    follow_server: bool = True,
    siblings: Siblings | None = None,
) -> APIRouter:
    """Create the routes of a gateway, which starts and ends with the application that includes them.

    Args:
        gateway: the gateway.
        probes: whether to add ``/healthz``, ``/readyz`` and ``/metrics``.
        bus: returns, when the application starts, the bus whose events the pages receive while Redis is unreachable.
        admin: the address of the Redis with the dead letters; None: no routes for dead letters.
        follow_server: whether to drain when the server shuts down. The stand-alone server drains by itself.
        siblings: the other workers of this machine; None: there are none.

    Returns:
        The routes.
    """
    lifetime = GatewayLifetime(gateway, bus, follow_server=follow_server)
    router = APIRouter(lifespan=lifetime.lifespan, route_class=HardenedRoute)
    if probes:
        add_probes(router, gateway, lifetime.ensure_started, siblings)
    _add_streams(router, gateway, lifetime)
    router.include_router(operation_routes(gateway), include_in_schema=False)
    router.include_router(ticket_routes(gateway), include_in_schema=False)
    if gateway.revocation_monitor is not None:
        router.include_router(session_routes(gateway, gateway.revocation_monitor), include_in_schema=False)
    if admin is not None and not admin.redis_url.startswith("memory:"):
        router.include_router(dead_letter_routes(gateway, admin), include_in_schema=False)
    add_client_files(router, gateway.settings.prefix)
    return router


def _add_streams(router: APIRouter, gateway: Gateway, lifetime: GatewayLifetime) -> None:
    prefix = gateway.settings.prefix

    @router.websocket(f"{prefix}/ws")
    async def websocket(websocket: WebSocket) -> None:
        await lifetime.ensure_started()
        lifetime.check_connection(websocket.scope)
        await serve_websocket(gateway, websocket)

    @router.get(f"{prefix}/sse", include_in_schema=False)
    async def sse(request: Request) -> Response:
        await lifetime.ensure_started()
        lifetime.check_connection(request.scope)
        return await serve_sse(gateway, request)

    @router.post(f"{prefix}/sessions/{{session}}/commands", include_in_schema=False)
    async def command(request: Request, session: str) -> Response:
        return await serve_command(gateway, request, session)

    @router.options(f"{prefix}/sse", include_in_schema=False)
    @router.options(f"{prefix}/sessions/{{session}}/commands", include_in_schema=False)
    async def options(request: Request) -> Response:
        return preflight(gateway, request)
