"""The HTTP interface for admins: dead letters, for a token with the admin scope."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import JSONResponse

from eventbus.backends.dead_letters import DeadLetter
from eventbus.backends.redis.dead_letter_client import DeadLetterFilter, DeadLetters
from eventbus.errors import EventBusError, InvalidEmission, NoDeadLetter, RateLimited, TransportError
from eventbus.settings import BusSettings
from webui_adapter.access.tokens import Principal
from webui_adapter.errors import CommandRefused
from webui_adapter.gateway.gateway import Gateway
from webui_adapter.transports.access import principal_of, read_body, refusal

__all__ = ["dead_letter_routes"]

T = TypeVar("T")

# Seconds; whoever waits longer for their turn is told to come again.
_PATIENCE = 5.0
_NAME = 64


class Choice(BaseModel):
    """Which dead letters are meant; ages in seconds."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    ids: Annotated[list[str], Field(max_length=1000)] | None = None
    channel: str | None = None
    reason: str | None = None
    type: str | None = None
    older_than: float | None = Field(None, ge=0)
    younger_than: float | None = Field(None, ge=0)
    limit: int = Field(100, ge=1, le=1000)

    @property
    def chosen(self) -> DeadLetterFilter:
        """The same for ``DeadLetters``."""
        ids = None if self.ids is None else frozenset(self.ids)
        return DeadLetterFilter(ids, self.channel, self.reason, self.type, self.older_than, self.younger_than)


class Decision(Choice):
    """``all`` has to be said where nothing narrows the choice."""

    all: Literal[True] | None = None


def dead_letter_routes(gateway: Gateway, bus_settings: BusSettings) -> APIRouter:
    """Routes under ``{prefix}/admin``."""
    router = APIRouter(prefix=f"{gateway.settings.prefix}/admin/dead-letters")
    service = _DeadLetterService(gateway, bus_settings)

    @router.get("")
    async def list_(request: Request) -> Response:
        def work(dead: DeadLetters, _: str, choice: Choice) -> object:
            return {"letters": [_facts(letter) for letter in dead.find(choice.chosen, limit=choice.limit)]}

        return await service.serve(request, _of_query, work)

    @router.get("/{channel}/{id}")
    async def show(request: Request, channel: str, id: str) -> Response:
        def work(dead: DeadLetters, _: str, __: None) -> object:
            letter = dead.show(channel, id)
            return {**_facts(letter), "content": letter.readable}

        return await service.serve(request, _nothing, work)

    @router.post("/requeue")
    async def requeue(request: Request) -> Response:
        def work(dead: DeadLetters, by: str, decision: Decision) -> object:
            done = dead.requeue(decision.chosen, by=by, limit=decision.limit)
            return {"requeued": done.requeued, "unreadable": done.unreadable, "left": done.left}

        return await service.serve(request, service.of_body, work)

    @router.post("/purge")
    async def purge(request: Request) -> Response:
        def work(dead: DeadLetters, by: str, decision: Decision) -> object:
            return {"purged": dead.purge(decision.chosen, by=by, limit=decision.limit)}

        return await service.serve(request, service.of_body, work)

    return router


@dataclass(frozen=True, slots=True)
class _Wrong:
    """Why a request is not served."""

    status: int
    code: str
    message: str
    field: str | None = None
    limit: float | None = None
    retry_after: float | None = None

    @property
    def response(self) -> Response:
        facts = {"code": self.code, "message": self.message, "field": self.field, "limit": self.limit}
        headers = {} if self.retry_after is None else {"Retry-After": str(max(1, round(self.retry_after)))}
        return JSONResponse({k: v for k, v in facts.items() if v is not None}, self.status, headers)


class _DeadLetterService:
    """One connection to Redis for all admins, in a thread: nobody's events wait for what they ask."""

    def __init__(self, gateway: Gateway, bus_settings: BusSettings) -> None:
        self._gateway = gateway
        self._dead = DeadLetters(bus_settings)
        self._turn = asyncio.Semaphore(1)

    async def of_body(self, request: Request) -> Decision:
        """Raises ValidationError, or CommandRefused where it is too large; no more than that is read."""
        limit = self._gateway.settings.max_command_size
        body = await read_body(request, limit)
        if body is None:
            raise CommandRefused("too_large", f"a request has at most {limit} bytes", limit=limit)
        return Decision.model_validate_json(body)

    async def serve(
        self,
        request: Request,
        given: Callable[[Request], Awaitable[T]],
        work: Callable[[DeadLetters, str, T], object],
    ) -> Response:
        """Check who asks, read what is ``given``, do it, and say what went wrong."""
        refused = refusal(self._gateway, request)
        if refused is not None:
            return refused
        answer = await self._served(request, principal_of(self._gateway, request), given, work)
        if isinstance(answer, _Wrong):
            self._gateway.counters[f"refused.{answer.code}"] += 1
            return answer.response
        return JSONResponse(answer)

    async def _served(
        self,
        request: Request,
        principal: Principal,
        given: Callable[[Request], Awaitable[T]],
        work: Callable[[DeadLetters, str, T], object],
    ) -> object:
        if not self._gateway.tokens.is_admin(principal):
            scope = self._gateway.settings.admin_scope
            return _Wrong(403, "forbidden", f"the token needs the scope {scope}")
        meant = await _read(request, given)
        if isinstance(meant, _Wrong):
            return meant
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._turn.acquire()
        except TimeoutError:
            return _Wrong(503, "busy", "other requests are under way", retry_after=1)
        try:
            return await asyncio.to_thread(work, self._dead, principal.user, meant)
        except EventBusError as error:
            return _answer(error)
        finally:
            self._turn.release()


async def _read(request: Request, given: Callable[[Request], Awaitable[T]]) -> T | _Wrong:
    """What the caller means, or why that is nothing."""
    try:
        meant = await given(request)
    except ValidationError as error:
        return _mistake(error)
    except CommandRefused as error:
        return _Wrong(413, error.code, str(error), limit=error.limit)
    if isinstance(meant, Decision) and meant.chosen.everything and not meant.all:
        return _Wrong(400, "bad_request", "name at least one field, or say all: true", field="all")
    return meant


async def _nothing(_: Request) -> None:
    return None


async def _of_query(request: Request) -> Choice:
    """Raises ValidationError."""
    query = request.query_params
    return Choice.model_validate({name: query.getlist(name) if name == "ids" else query[name] for name in query})


def _mistake(error: ValidationError) -> _Wrong:
    first = error.errors(include_url=False, include_input=False)[0]
    field = str(first["loc"][0]) if first["loc"] else "body"
    ctx = first.get("ctx", {})
    limit = next((ctx[name] for name in ("le", "ge", "max_length") if name in ctx), None)
    # A member's name is the caller's: any length, and half a surrogate pair.
    said = field[:_NAME].encode(errors="replace").decode()
    return _Wrong(400, "bad_request", f"{said}: {first['msg']}", field=said, limit=limit)


def _answer(error: EventBusError) -> _Wrong:
    """What went wrong, as an answer over HTTP. Raises what is none of the caller's."""
    match error:
        case NoDeadLetter():
            return _Wrong(404, "not_found", str(error))
        case InvalidEmission(limit=limit):
            return _Wrong(
                400, "bad_request", str(error), field=error.field, limit=limit if isinstance(limit, int) else None
            )
        case RateLimited():
            return _Wrong(429, "rate_limited", str(error), limit=error.limit, retry_after=error.retry_after)
        case TransportError():
            return _Wrong(503, "unavailable", str(error), retry_after=1)
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
