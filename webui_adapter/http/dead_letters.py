"""Dead letters over HTTP, for admins: list, show, requeue and purge."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Final, Literal, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import JSONResponse

from eventbus.backends.dead_letters import DeadLetter
from eventbus.backends.redis.dead_letter_client import DeadLetterFilter, DeadLetters
from eventbus.errors import EventBusError
from eventbus.settings import BusSettings
from webui_adapter.errors import CommandRefused
from webui_adapter.gateway.gateway import Gateway
from webui_adapter.http.admin.access import check_admin
from webui_adapter.http.route import HardenedRoute
from webui_adapter.transports.access import authorise_request, read_body
from webui_adapter.transports.error_responses import bad_request, error_response, refusal_of

__all__ = ["dead_letter_routes"]

T = TypeVar("T")

_SLOT_TIMEOUT: Final = 5.0  # seconds
_RETRY_MS: Final = 1000


class Selection(BaseModel):
    """The dead letters that a request is about; ages in seconds."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    ids: Annotated[list[str], Field(max_length=1000)] | None = None
    channel: str | None = None
    reason: str | None = None
    type: str | None = None
    older_than: float | None = Field(None, ge=0)
    younger_than: float | None = Field(None, ge=0)
    limit: int = Field(100, ge=1, le=1000)

    @property
    def filter(self) -> DeadLetterFilter:
        """The same for ``DeadLetters``."""
        ids = None if self.ids is None else frozenset(self.ids)
        return DeadLetterFilter(ids, self.channel, self.reason, self.type, self.older_than, self.younger_than)


class Decision(Selection):
    """A selection to requeue or purge; without any other member it must say ``all``."""

    all: Literal[True] | None = None


def dead_letter_routes(gateway: Gateway, bus_settings: BusSettings) -> APIRouter:
    """Create the routes under ``{prefix}/admin/dead-letters``.

    Args:
        gateway: the gateway that checks tokens.
        bus_settings: the address of the Redis that keeps the dead letters.

    Returns:
        The routes.
    """
    router = APIRouter(prefix=f"{gateway.settings.prefix}/admin/dead-letters", route_class=HardenedRoute)
    service = _DeadLetterService(gateway, bus_settings)

    @router.get("")
    async def list_(request: Request) -> Response:
        def work(dead: DeadLetters, _: str, selection: Selection) -> object:
            return {"letters": [_facts(entry) for entry in dead.find(selection.filter, limit=selection.limit)]}

        return await service.serve(request, _from_query, work)

    @router.get("/{channel}/{id}")
    async def show(request: Request, channel: str, id: str) -> Response:
        def work(dead: DeadLetters, _: str, __: None) -> object:
            entry = dead.show(channel, id)
            return {**_facts(entry), "content": entry.readable}

        return await service.serve(request, _nothing, work)

    @router.post("/requeue")
    async def requeue(request: Request) -> Response:
        def work(dead: DeadLetters, by: str, decision: Decision) -> object:
            done = dead.requeue(decision.filter, by=by, via="http", limit=decision.limit)
            return {"requeued": done.requeued, "unreadable": done.unreadable, "left": done.left}

        return await service.serve(request, service.from_body, work)

    @router.post("/purge")
    async def purge(request: Request) -> Response:
        def work(dead: DeadLetters, by: str, decision: Decision) -> object:
            return {"purged": dead.purge(decision.filter, by=by, via="http", limit=decision.limit)}

        return await service.serve(request, service.from_body, work)

    return router


class _DeadLetterService:
    """One connection to Redis for all admins, used in a thread: their requests delay no events."""

    def __init__(self, gateway: Gateway, bus_settings: BusSettings) -> None:
        self._gateway = gateway
        self._dead = DeadLetters(bus_settings)
        self._slot = asyncio.Semaphore(1)

    async def from_body(self, request: Request) -> Decision:
        """Read a decision from the body. Raises ValidationError, or CommandRefused if the body is too large."""
        limit = self._gateway.settings.max_command_size
        body = await read_body(request, limit)
        if body is None:
            raise CommandRefused("too_large", f"a request has at most {limit} bytes", limit=limit)
        decision = Decision.model_validate_json(body)
        if decision.filter.everything and not decision.all:
            raise CommandRefused("bad_request", "name at least one field, or say all: true", field="all")
        return decision

    async def serve(
        self,
        request: Request,
        read: Callable[[Request], Awaitable[T]],
        work: Callable[[DeadLetters, str, T], object],
    ) -> Response:
        """Check the admin, read the request, do the work, and answer with the result or an error."""
        try:
            principal = await authorise_request(self._gateway, request)
        except EventBusError as error:
            return error_response(error)
        try:
            check_admin(self._gateway, principal)
            given = await read(request)
            return JSONResponse(await self._in_turn(lambda: work(self._dead, principal.user, given)))
        except ValidationError as error:
            refusal = refusal_of(bad_request(error))
        except EventBusError as error:
            refusal = refusal_of(error)
        self._gateway.counters[f"refused.{refusal.code}"] += 1
        return error_response(refusal)

    async def _in_turn(self, work: Callable[[], object]) -> object:
        """Run the work in a thread, one request after the other. Raises CommandRefused after some seconds."""
        try:
            async with asyncio.timeout(_SLOT_TIMEOUT):
                await self._slot.acquire()
        except TimeoutError:
            raise CommandRefused("busy", "other requests are under way", retry_ms=_RETRY_MS) from None
        try:
            return await asyncio.to_thread(work)
        finally:
            self._slot.release()


async def _nothing(_: Request) -> None:
    return None


async def _from_query(request: Request) -> Selection:
    """Read a selection from the query. Raises ValidationError."""
    query = request.query_params
    return Selection.model_validate({name: query.getlist(name) if name == "ids" else query[name] for name in query})


def _facts(entry: DeadLetter) -> dict[str, object]:
    return {
        "channel": entry.channel,
        "id": entry.id,
        "reason": entry.reason,
        "type": entry.type,
        "attempts": entry.attempts,
        "first": entry.first,
        "died": entry.died,
        "requeues": entry.requeues,
    }
