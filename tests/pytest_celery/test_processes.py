"""With pytest-celery and without Docker: an operation from queued to its end, and past the end of its worker."""

from __future__ import annotations

from celery import chord

from eventbus.operations.events import OperationQueued, OperationStarted, OperationSucceeded, TaskProgress
from eventbus.testing import like
from tests.eventbus.testing.events import Indexed
from tests.pytest_celery.shop import hold, index
from worker_adapter import start_operation


async def test_an_operation_from_queued_to_its_end(celery_setup, eventbus_bus, eventbus_connect, eventbus_user):
    assert celery_setup.ready(ping=False, control=True, docker=True)
    flow = chord([index.s(["a", "b"]), index.s(["c"])], index.si(["d"]))
    operation = start_operation(flow, user=eventbus_user, label="Index")
    async with eventbus_connect(eventbus_user, cursor=operation.cursor) as page:
        end = await page.event(OperationSucceeded, 30, operation=operation.id)
    assert (end.done, end.failed, end.total) == (3, 0, 3)
    events = page.events.to(op=operation.id)
    assert sorted(event.document for event in events.of(Indexed)) == ["a", "b", "c", "d"]
    events.in_order(
        like(OperationQueued, label="Index", total=3), OperationStarted, like(Indexed, document="d"), OperationSucceeded
    )
    assert operation.result.get(timeout=10) == 1


async def test_a_worker_node_is_killed(celery_setup, eventbus_bus, eventbus_connect, eventbus_user, tmp_path):
    go = tmp_path / "go"
    operation = start_operation(hold.si(str(go)), user=eventbus_user)
    async with eventbus_connect(eventbus_user, cursor=operation.cursor) as page:
        await page.event(Indexed, 30, document="held")
        celery_setup.worker.kill()
        assert celery_setup.worker.container.status == "exited"
        page.events.none(OperationSucceeded)
        go.touch()
        celery_setup.worker.restart()
        celery_setup.worker.ready()
        end = await page.event(OperationSucceeded, 60, operation=operation.id)
        assert (end.done, end.total) == (1, 1)
        # The events of the task itself are doubled unless they have ids. Its life cycle is not.
        assert len(page.events.of(Indexed, document="held")) == 2
        assert len(page.events.of(OperationStarted)) == 1
        page.events.none(TaskProgress, state="failed")
