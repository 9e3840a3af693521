"""The HTTP interface for admins: dead letters, for a token with the admin scope."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Literal, TypeVar

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from eventbus.deadletters import Chosen, DeadLetters
from eventbus.errors import EventBusError, InvalidEmission, NoDeadLetter, RateLimited, TransportError
from eventbus.letters import DeadLetter
from eventbus.settings import BusSettings
from webui_adapter.gateway import Gateway
from webui_adapter.sse import principal_of, refusal

__all__ = ["admin_routes"]

T = TypeVar("T")

# Seconds; whoever waits longer for their turn is told to come again.
_PATIENCE = 5.0


class Choice(BaseModel):
    """Which dead letters are meant; ages in seconds."""

    model_config = ConfigDict(extra="forbid")

    ids: Annotated[list[str], Field(max_length=1000)] | None = None
    channel: str | None = None
    reason: str | None = None
    type: str | None = None
    older_than: float | None = Field(None, ge=0)
    younger_than: float | None = Field(None, ge=0)
    limit: int = Field(100, ge=1, le=1000)

    @property
    def chosen(self) -> Chosen:
        """The same for ``DeadLetters``."""
        ids = None if self.ids is None else frozenset(self.ids)
        return Chosen(ids, self.channel, self.reason, self.type, self.older_than, self.younger_than)


class Decision(Choice):
    """``all`` has to be said where nothing narrows the choice."""

    all: Literal[True] | None = None


def admin_routes(gateway: Gateway, bus_settings: BusSettings) -> APIRouter:
    """Routes under ``{prefix}/admin``."""
    router = APIRouter(prefix=f"{gateway.settings.prefix}/admin/dead-letters")
    desk = _Desk(gateway, bus_settings)

    @router.get("")
    async def list_(request: Request, choice: Annotated[Choice, Query()]) -> Response:
        def work(dead: DeadLetters, _: str) -> object:
            return {"letters": [_facts(letter) for letter in dead.find(choice.chosen, limit=choice.limit)]}

        return await desk.serve(request, work)

    @router.get("/{channel}/{id}")
    async def show(request: Request, channel: str, id: str) -> Response:
        def work(dead: DeadLetters, _: str) -> object:
            letter = dead.show(channel, id)
            return {**_facts(letter), "content": letter.readable}

        return await desk.serve(request, work)

    @router.post("/requeue")
    async def requeue(request: Request, decision: Decision) -> Response:
        def work(dead: DeadLetters, by: str) -> object:
            done = dead.requeue(decision.chosen, by=by, limit=decision.limit)
            return {"requeued": done.requeued, "unreadable": done.unreadable, "left": done.left}

        return await desk.serve(request, work, decision)

    @router.post("/purge")
    async def purge(request: Request, decision: Decision) -> Response:
        def work(dead: DeadLetters, by: str) -> object:
            return {"purged": dead.purge(decision.chosen, by=by, limit=decision.limit)}

        return await desk.serve(request, work, decision)

    return router


class _Desk:
    """One connection to Redis for all admins, in a thread: nobody's events wait for what they ask."""

    def __init__(self, gateway: Gateway, bus_settings: BusSettings) -> None:
        self._gateway = gateway
        self._dead = DeadLetters(bus_settings)
        self._turn = asyncio.Semaphore(1)

    async def serve(
        self, request: Request, work: Callable[[DeadLetters, str], object], decision: Decision | None = None
    ) -> Response:
        """Check who asks, do it, and say what went wrong."""
        refused = refusal(self._gateway, request)
        if refused is not None:
            return refused
        principal = principal_of(self._gateway, request)
        if not self._gateway.tokens.is_admin(principal):
            scope = self._gateway.settings.admin_scope
            return _error(403, "forbidden", f"the token needs the scope {scope}")
        if decision is not None and decision.chosen.everything and not decision.all:
            return _error(400, "bad_request", "name at least one field, or say all: true", field="all")
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._turn.acquire()
        except TimeoutError:
            return _error(503, "busy", "other requests are under way", retry_after=1)
        try:
            return JSONResponse(await asyncio.to_thread(work, self._dead, principal.user))
        except EventBusError as error:
            return _answer(error)
        finally:
            self._turn.release()


def _answer(error: EventBusError) -> Response:
    """What went wrong, as an answer over HTTP. Raises what is none of the caller's."""
    match error:
        case NoDeadLetter():
            return _error(404, "not_found", str(error))
        case InvalidEmission():
            return _error(400, "bad_request", str(error), field=error.field)
        case RateLimited():
            return _error(429, "rate_limited", str(error), retry_after=error.retry_after)
        case TransportError():
            return _error(503, "unavailable", str(error), retry_after=1)
    raise error


def _facts(letter: DeadLetter) -> dict[str, object]:
    return {
        "channel": letter.channel,
        "id": letter.id,
        "reason": letter.reason,
        "type": letter.type,
        "attempts": letter.attempts,
        "first": letter.first,
        "died": letter.died,
        "requeues": letter.requeues,
    }


def _error(
    status: int, code: str, message: str, *, field: str | None = None, retry_after: float | None = None
) -> Response:
    headers = {} if retry_after is None else {"Retry-After": str(max(1, round(retry_after)))}
    body = {"code": code, "message": message, **({} if field is None else {"field": field})}
    return JSONResponse(body, status, headers)
