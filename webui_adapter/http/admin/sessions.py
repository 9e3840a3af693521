"""Sessions and tokens over HTTP, for admins: end sessions, revoke tokens, list revocations."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.responses import JSONResponse

from eventbus.backends.revocations import Revocation, RevocationRequest, end_sessions, revoke_token, revoke_tokens
from eventbus.errors import EventBusError
from webui_adapter.errors import CommandRefused
from webui_adapter.gateway.gateway import Gateway
from webui_adapter.http.admin.access import check_admin
from webui_adapter.http.route import HardenedRoute
from webui_adapter.maintenance.revocation_monitor import RevocationMonitor
from webui_adapter.transports.access import authorise_request, read_body
from webui_adapter.transports.error_responses import bad_request, error_response, refusal_of

__all__ = ["session_routes"]

log = logging.getLogger(__name__)

B = TypeVar("B", bound=BaseModel)


class EndSessions(BaseModel):
    """The body of a request to end sessions."""

    model_config = ConfigDict(extra="forbid")

    user: str
    reason: str = ""

    def request(self, by: str) -> RevocationRequest:
        """Return what to revoke. Raises InvalidName."""
        return end_sessions(self.user, self.reason, by)


class RevokeTokens(BaseModel):
    """The body of a request to revoke tokens: those of a user, or one."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    user: str | None = None
    issued_before: float | None = Field(None, gt=0)
    jti: str | None = None
    reason: str = ""

    @model_validator(mode="after")
    def _one_of_both(self) -> RevokeTokens:
        if (self.user is None) == (self.jti is None):
            raise ValueError("name either user or jti")
        if self.jti is not None and self.issued_before is not None:
            raise ValueError("issued_before goes with user")
        return self

    def request(self, by: str) -> RevocationRequest:
        """Return what to revoke. Raises InvalidName."""
        if self.jti is not None:
            return revoke_token(self.jti, self.reason, by)
        return revoke_tokens(self.user or "", self.issued_before, self.reason, by)


def session_routes(gateway: Gateway, monitor: RevocationMonitor) -> APIRouter:
    """Create the routes under ``{prefix}/admin`` for sessions and tokens.

    Args:
        gateway: the gateway that checks tokens.
        monitor: revokes.

    Returns:
        The routes.
    """
    router = APIRouter(prefix=f"{gateway.settings.prefix}/admin", route_class=HardenedRoute)

    async def revoke(request: Request, body: type[EndSessions | RevokeTokens]) -> Response:
        async def work(by: str) -> object:
            asked = body.model_validate_json(await _body(gateway, request)).request(by)
            revocation = await monitor.revoke(asked)
            log.info("%s revoked %s: %s", by, asked.member, asked.reason or "no reason given")
            return _facts(revocation)

        return await _serve(gateway, request, work)

    @router.post("/sessions/end")
    async def end(request: Request) -> Response:
        return await revoke(request, EndSessions)

    @router.post("/tokens/revoke")
    async def revoke_(request: Request) -> Response:
        return await revoke(request, RevokeTokens)

    @router.get("/revocations")
    async def list_(request: Request) -> Response:
        async def work(_: str) -> object:
            return {"revocations": [_facts(revocation) for revocation in await monitor.all()]}

        return await _serve(gateway, request, work)

    return router


async def _serve(gateway: Gateway, request: Request, work: Callable[[str], Awaitable[object]]) -> Response:
    """Check the admin, do the work, and answer with the result or an error."""
    try:
        principal = await authorise_request(gateway, request)
    except EventBusError as error:
        return error_response(error)
    try:
        check_admin(gateway, principal)
        return JSONResponse(await work(principal.user))
    except ValidationError as error:
        refusal = refusal_of(bad_request(error))
    except EventBusError as error:
        refusal = refusal_of(error)
    gateway.counters[f"refused.{refusal.code}"] += 1
    return error_response(refusal)


async def _body(gateway: Gateway, request: Request) -> bytes:
    limit = gateway.settings.max_command_size
    body = await read_body(request, limit)
    if body is None:
        raise CommandRefused("too_large", f"a request has at most {limit} bytes", limit=limit)
    return body


def _facts(revocation: Revocation) -> dict[str, object]:
    return {
        "kind": revocation.kind,
        "subject": revocation.subject,
        "issued_before": revocation.issued_before if revocation.kind == "user" else None,
        "at": revocation.at,
        "until": revocation.until,
        "by": revocation.by,
        "reason": revocation.reason,
    }
