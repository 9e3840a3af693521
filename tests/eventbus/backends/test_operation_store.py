"""Operations are listed, described and cancelled: the same over Redis and in the process."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from eventbus import InvalidName
from eventbus.backends.factory import connect_operation_store
from eventbus.backends.memory.adapters import MemoryReader
from eventbus.backends.ports import RecordTransitions
from eventbus.operations.changes import event_stamp
from eventbus.operations.state import TaskTransition
from eventbus.operations.store import OperationStore, RunningTask
from tests.eventbus.conftest import Ends


@pytest.fixture
def book(ends: Ends) -> OperationStore:
    broker = ends.reader._broker if isinstance(ends.reader, MemoryReader) else None
    made = connect_operation_store(ends.settings, ends.reader, broker=broker)
    assert made is not None
    return made


def record(ends: Ends, op: str, *transitions: TaskTransition, user: str = "42") -> None:
    (published,) = ends.publisher.publish(
        [RecordTransitions(f"user:{user}", op, transitions, event_stamp(f"label of {op}"))]
    )
    assert not isinstance(published, Exception)


def queue(ends: Ends, *ops: str, user: str = "42") -> None:
    for op in ops:
        record(
            ends,
            op,
            TaskTransition("plan", planned=2),
            TaskTransition("published", "a", 1),
            TaskTransition("published", "b", 1),
            user=user,
        )


def start(task: str) -> TaskTransition:
    return TaskTransition(
        "started", task, 1, lease=60_000, task_json=f'"task":"t-{task}","name":"shop.{task}","retries":0'
    )


async def said(ends: Ends) -> list[str]:
    return [json.loads(entry.record.event)["type"] for entry in (await ends.reader.read("user:42", 0)).log]


async def test_listed_the_newest_first_by_state_and_of_one_user(ends: Ends, book: OperationStore) -> None:
    queue(ends, "first", "second", "third")
    queue(ends, "another", user="43")
    record(ends, "second", start("a"))
    found = await book.of("42", 50)
    assert [(info.id, info.state, info.label) for info in found] == [
        ("third", "queued", "label of third"),
        ("second", "running", "label of second"),
        ("first", "queued", "label of first"),
    ]
    assert [info.id for info in await book.of("42", 2)] == ["third", "second"]
    assert [info.id for info in await book.of("42", 1, ["queued", "cancelled"])] == ["third"]
    assert [info.id for info in await book.of("42", 50, ["running"])] == ["second"]
    assert list(await book.of("nobody", 50)) == []


async def test_described_with_what_runs(ends: Ends, book: OperationStore) -> None:
    queue(ends, "9")
    record(ends, "9", start("a"), TaskTransition("done", "b", 1))
    info = await book.get("42", "9")
    assert info is not None
    assert (info.user, info.id, info.state, info.done, info.failed, info.total) == ("42", "9", "running", 1, 0, 2)
    assert info.tasks == (RunningTask("t-a", "shop.a", 0, lost=False),)
    assert 0 < info.queued <= info.started <= info.heard
    assert (info.ended, info.cancelled) == (0, 0)
    (listed,) = await book.of("42", 1)
    assert listed == replace(info, tasks=()), "a list says nothing of tasks"
    assert await book.get("42", "never") is None
    assert await book.get("43", "9") is None


async def test_cancelled_while_queued(ends: Ends, book: OperationStore) -> None:
    queue(ends, "9")
    info = await book.cancel("42", "9")
    assert info is not None
    assert info.state == "cancelled"
    assert info.ended >= info.cancelled > 0
    assert await book.cancel("42", "9") == info, "twice is as good as once"
    assert await said(ends) == ["operation.cancelled"]


async def test_cancelled_while_it_runs(ends: Ends, book: OperationStore) -> None:
    queue(ends, "9")
    record(ends, "9", start("a"))
    info = await book.cancel("42", "9")
    assert info is not None
    assert (info.state, [task.name for task in info.tasks]) == ("cancelling", ["shop.a"])
    record(ends, "9", TaskTransition("revoked", "a", 1))
    info = await book.get("42", "9")
    assert info is not None
    assert (info.state, info.failed, info.tasks) == ("cancelled", 0, ())
    assert await said(ends) == ["operation.started", "operation.cancelling", "operation.cancelled"]


async def test_too_late_to_cancel(ends: Ends, book: OperationStore) -> None:
    record(
        ends,
        "9",
        TaskTransition("plan", planned=1),
        TaskTransition("published", "a", 1),
        TaskTransition("failed", "a", 1),
    )
    info = await book.cancel("42", "9")
    assert info is not None
    assert (info.state, info.cancelled) == ("failed", 0)


async def test_nothing_to_cancel(ends: Ends, book: OperationStore) -> None:
    queue(ends, "9", user="43")
    assert await book.cancel("42", "9") is None
    with pytest.raises(InvalidName):
        await book.cancel("42", "a b")
    with pytest.raises(InvalidName):
        await book.get("a b", "9")


async def test_the_list_is_bounded(ends: Ends, book: OperationStore) -> None:
    queue(ends, *(f"op{i}" for i in range(505)))
    found = await book.of("42", 1000)
    assert (len(found), found[0].id, found[-1].id) == (500, "op504", "op5")
