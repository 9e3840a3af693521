"""Async code in a task and around it: the same operation and events."""

import asyncio

import httpx
import pytest
from fastapi import FastAPI

from eventbus import aemit
from tests.worker_adapter import app as a
from tests.worker_adapter.listening import END, SubscriptionListener
from worker_adapter import astart_operation, atrack, start_operation


def of(events, type_):
    return [e.data for e in events if e.type == type_]


@pytest.mark.usefixtures("application", "worker")
def test_a_task_that_runs_an_event_loop(redis_url):
    listening = SubscriptionListener(redis_url, "async")
    operation = start_operation(a.in_a_loop.si(n=300), user=listening.user)
    events = listening.until(lambda heard: any(e.type in END for e in heard))
    listening.close()
    assert events[-1].type == "operation.succeeded"
    seen = {data["what"]: data["operation"] for data in of(events, "test.seen")}
    assert seen == dict.fromkeys(
        ("awaited", "gathered-0", "gathered-1", "in a thread", "announced"), f"async/{operation.id}"
    )
    (last,) = [data for data in of(events, "task.progress") if data["state"] == "done" and data["stage"] == "loop"]
    assert (last["done"], last["total"]) == (300, 300)
    (last,) = [data for data in of(events, "task.progress") if data["state"] == "done" and data["stage"] == "stream"]
    assert (last["done"], last["total"]) == (300, None)


@pytest.mark.usefixtures("application", "worker")
async def test_an_endpoint_starts_an_operation_and_emits_for_it(redis_url):
    web = FastAPI()

    @web.post("/start")
    async def start():
        operation = await astart_operation(a.in_a_loop.si(n=1), user="endpoint")
        receipt = await aemit("endpoint", operation.id, a.TaskRan(what="endpoint", operation=operation.id))
        return {"id": operation.id, "cursor": operation.cursor, "status": receipt.status, "offset": receipt.offset}

    listening = await asyncio.to_thread(SubscriptionListener, redis_url, "endpoint")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(web), base_url="http://test") as client:
        answer = (await client.post("/start")).json()

    def complete(heard):
        # The task may end before the endpoint emits.
        return any(e.type in END for e in heard) and any(e.data.get("what") == "endpoint" for e in heard)

    events = await asyncio.to_thread(listening.until, complete)
    listening.close()
    assert answer["status"] == "published"
    (mine,) = [e for e in events if e.data.get("what") == "endpoint"]
    assert mine.offset == answer["offset"]
    assert {e.data["operation"] for e in events if e.type.startswith("operation.")} == {answer["id"]}


async def test_an_async_loop_counts_outside_of_every_operation():
    async def numbers():
        for n in range(3):
            yield n

    assert [n async for n in atrack(numbers())] == [0, 1, 2]
