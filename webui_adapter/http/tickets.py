"""Tickets over HTTP: a page with a token gets one for a client that can send no header."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from eventbus.errors import EventBusError
from webui_adapter.gateway.gateway import Gateway
from webui_adapter.http.route import HardenedRoute
from webui_adapter.transports.access import authorise_request, cors, preflight
from webui_adapter.transports.error_responses import error_response, refusal_of

__all__ = ["ticket_routes"]


def ticket_routes(gateway: Gateway) -> APIRouter:
    """Create the route ``{prefix}/tickets``.

    Args:
        gateway: the gateway.

    Returns:
        The routes.
    """
    router = APIRouter(prefix=f"{gateway.settings.prefix}/tickets", route_class=HardenedRoute)

    @router.post("")
    async def issue(request: Request) -> Response:
        headers, settings = cors(gateway, request), gateway.settings
        try:
            principal = await authorise_request(gateway, request)
        except EventBusError as error:
            return error_response(error, headers)
        try:
            gateway.rate_limiters.requested(principal.user, gateway.clock.now())
            seconds, limit = settings.ticket_ttl, settings.max_tickets_per_user
            ticket = await gateway.authenticator.issue_ticket(principal, seconds, limit)
        except EventBusError as error:
            gateway.counters[f"refused.{refusal_of(error).code}"] += 1
            return error_response(error, headers)
        gateway.counters["tickets"] += 1
        return JSONResponse({"ticket": ticket, "expires_in": seconds}, 201, headers)

    @router.options("")
    async def options(request: Request) -> Response:
        return preflight(gateway, request)

    return router
