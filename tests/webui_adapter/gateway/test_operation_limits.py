"""Concurrent requests for operations are bounded: a flood takes neither all connections nor all memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest

from eventbus.operations.state import OperationState
from eventbus.operations.store import OperationInfo
from tests.webui_adapter.parts import new_context
from webui_adapter.access.principal import Principal
from webui_adapter.errors import CommandRefused
from webui_adapter.gateway import operations
from webui_adapter.gateway.operations import OperationService
from webui_adapter.protocol.commands import Cancel, ListOperations

ANN = Principal("ann", 2e9, frozenset(), {})


class SlowStore:
    """One that answers when it is let."""

    def __init__(self) -> None:
        self.let = asyncio.Event()
        self.asked = 0

    async def of(self, user: str, limit: int, states: Sequence[OperationState] = ()) -> Sequence[OperationInfo]:
        self.asked += 1
        await self.let.wait()
        return []

    async def get(self, user: str, op: str) -> OperationInfo | None:
        raise NotImplementedError

    async def cancel(self, user: str, op: str) -> OperationInfo | None:
        raise NotImplementedError


def service_of(store: SlowStore, read_only: str | None = None) -> OperationService:
    def spawn(work: object) -> None:
        raise NotImplementedError

    return OperationService(new_context(spawn=spawn, read_only=lambda: read_only), store)


async def ask(service: OperationService) -> str:
    try:
        await service.execute(ANN, ListOperations(50, ()))
    except CommandRefused as error:
        return error.code if error.retry_ms else "no time to try again"
    return "answered"


async def test_a_few_run_and_a_bounded_number_waits() -> None:
    store = SlowStore()
    service = service_of(store)
    questions = [asyncio.create_task(ask(service)) for _ in range(600)]
    while not any(question.done() for question in questions):
        await asyncio.sleep(0)
    assert store.asked == 8
    store.let.set()
    answers = Counter(await asyncio.gather(*questions))
    assert answers == {"answered": 508, "unavailable": 92}
    assert await ask(service) == "answered"


async def test_a_request_that_waits_too_long_is_refused_with_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "_SLOT_TIMEOUT", 0.01)
    store = SlowStore()
    service = service_of(store)
    questions = [asyncio.create_task(ask(service)) for _ in range(9)]
    done, _ = await asyncio.wait(questions, return_when=asyncio.FIRST_COMPLETED)
    assert [question.result() for question in done] == ["unavailable"]
    store.let.set()
    assert Counter(await asyncio.gather(*questions)) == {"answered": 8, "unavailable": 1}


async def test_nothing_is_asked_where_nothing_can_be_written() -> None:
    with pytest.raises(CommandRefused) as caught:
        await service_of(SlowStore(), "Redis refuses writes").execute(ANN, Cancel("9"))
    assert caught.value.code == "read_only"
    assert "Redis refuses writes" in str(caught.value)
