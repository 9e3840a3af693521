"""A reader without a cursor gets only the snapshot. Its operations have their present state."""

from __future__ import annotations

import json

import pytest

from eventbus.backends.ports import RecordTransitions
from eventbus.operations.changes import event_stamp
from eventbus.operations.state import TaskTransition
from eventbus.protocol.cursor import Position
from eventbus.protocol.recovery import resume
from tests.eventbus.backends.operation import REF, data, start

PLAN = [TaskTransition("plan", planned=2), *(TaskTransition("published", task, 1) for task in "ab")]


def record(ends, *transitions):
    (published,) = ends.publisher.publish([RecordTransitions("user:42", REF.op, transitions, event_stamp("a label"))])
    return published.counts


async def present(reader, cursor=None):
    """States of operations that a new reader gets, or one with a cursor that the log cannot serve."""
    found = resume(cursor, await reader.read("user:42", None), [], now_ms=1)
    events = [json.loads(one.event) for one in found.records if one.type == "operation.progress"]
    return [event["data"]["state"] for event in events]


@pytest.mark.parametrize(
    ("steps", "state"),
    [
        ([], "queued"),
        ([[start("a")]], "running"),
        ([[start("a"), TaskTransition("released", "a", 1)]], "running"),
        ([[start("a")], [TaskTransition("done", "a", 1)]], "running"),
        ([[start("a")], [TaskTransition("done", "a", 1), TaskTransition("done", "b", 1)]], "succeeded"),
        ([[start("a")], [TaskTransition("failed", "a", 1)], [TaskTransition("done", "b", 1)]], "failed"),
    ],
)
async def test_the_snapshot_has_the_present_state(ends, steps, state):
    record(ends, *PLAN)
    for step in steps:
        record(ends, *step)
    assert await present(ends.reader) == [state]


async def test_a_task_that_starts_and_ends_in_one_call_with_an_internal_one_open(real):
    """The snapshot and the list have the present state, and a bar that is not full: the operation runs on."""
    inner = TaskTransition("published", "inner", internal=True)
    real.record(TaskTransition("plan", planned=1), TaskTransition("published", "a", 1), inner)
    real.record(start("a"), TaskTransition("done", "a", 1))
    assert await present(real.reader) == ["running"]
    events = await real.events()
    assert ("operation.started", data("running", 0, 0, 1)) in events
    assert events[-1] == ("operation.progress", data("running", 0, 0, 1))
    (listed,) = real.client.of("42")
    assert (listed.state, listed.done, listed.total) == ("running", 0, 1)
    real.record(TaskTransition("done", "inner", internal=True))
    assert (await real.events())[-1] == ("operation.succeeded", data("succeeded", 1, 0, 1))


async def test_the_snapshot_has_the_state_of_cancelled_and_lost_operations(real):
    real.record(*PLAN)
    real.record(start("a", acks_late=True))
    real.age("a")
    real.expire_leases()
    assert await present(real.reader) == ["lost"]
    real.record(start("a", acks_late=True))
    assert await present(real.reader) == ["running"]
    real.cancel()
    assert await present(real.reader) == ["cancelling"]
    real.record(TaskTransition("revoked", "a", 1))
    assert await present(real.reader) == ["cancelled"]


async def test_the_snapshot_has_the_state_of_an_operation_that_was_cancelled_in_the_queue(real):
    real.record(*PLAN)
    real.cancel()
    assert await present(real.reader) == ["cancelled"]


async def test_a_reader_after_a_gap_gets_the_state_that_it_missed(real):
    """Its cursor is after the last count, and the log that reported the change is trimmed."""
    real.record(*PLAN)
    cursor = (await real.reader.read("user:42", None)).position
    real.record(start("a"))
    assert await present(real.reader, Position(cursor.epoch, cursor.offset)) == ["running"]
