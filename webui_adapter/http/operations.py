"""Operations over HTTP: for scripts, and for pages without a session."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from eventbus.errors import EventBusError
from webui_adapter.errors import CommandRefused
from webui_adapter.gateway.gateway import Gateway
from webui_adapter.gateway.operations import OperationCommand
from webui_adapter.http.route import HardenedRoute
from webui_adapter.protocol.commands import Cancel, ListOperations, ShowOperation, check_limit, check_name, check_states
from webui_adapter.transports.access import authorise_request, cors, preflight
from webui_adapter.transports.error_responses import error_response

__all__ = ["operation_routes"]

_DIGITS = 6


def operation_routes(gateway: Gateway) -> APIRouter:
    """Create the routes under ``{prefix}/operations``.

    Args:
        gateway: the gateway.

    Returns:
        The routes.
    """
    router = APIRouter(prefix=f"{gateway.settings.prefix}/operations", route_class=HardenedRoute)

    @router.get("")
    async def list_(request: Request) -> Response:
        return await _serve(gateway, request, None)

    @router.get("/{op}")
    async def show(request: Request, op: str) -> Response:
        return await _serve(gateway, request, op)

    @router.post("/{op}/cancel")
    async def cancel(request: Request, op: str) -> Response:
        return await _serve(gateway, request, op)

    @router.options("")
    @router.options("/{op}")
    @router.options("/{op}/cancel")
    async def options(request: Request) -> Response:
        return preflight(gateway, request)

    return router


async def _serve(gateway: Gateway, request: Request, op: str | None) -> Response:
    headers = {"Cache-Control": "no-store", **cors(gateway, request)}
    try:
        principal = await authorise_request(gateway, request)
    except EventBusError as error:
        return error_response(error, headers)
    try:
        gateway.rate_limiters.requested(principal.user, gateway.clock.now())
        service = gateway.operations
        if service is None:
            raise CommandRefused("unavailable", "this gateway serves no operations")
        return JSONResponse(await service.execute(principal, _command(request, op)), headers=headers)
    except CommandRefused as error:
        gateway.counters[f"refused.{error.code}"] += 1
        return error_response(error, headers)


def _command(request: Request, op: str | None) -> OperationCommand:
    """Return the command that a request means. Raises CommandRefused."""
    query = request.query_params
    user = check_name(query["user"], "user") if "user" in query else None
    if op is None:
        return ListOperations(check_limit(_number(query.get("limit"))), check_states(query.getlist("state")), user)
    operation = check_name(op, "operation")
    return Cancel(operation, user) if request.method == "POST" else ShowOperation(operation, user)


def _number(text: str | None) -> int | str | None:
    """Return a number of a sensible length; other text as it is, which a check refuses."""
    return int(text) if text is not None and text.isdecimal() and len(text) <= _DIGITS else text
