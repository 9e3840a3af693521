"""Operations are counted: Lua in Redis and Python in the process do the same, in any order of reports."""

from __future__ import annotations

import pytest

from eventbus.backends.memory.adapters import MemoryBroker, MemoryPublisher, MemoryReader
from eventbus.backends.ports import RecordTransitions
from eventbus.backends.redis.operation_store import RedisOperations
from eventbus.clock import now_ms
from eventbus.operations.changes import event_stamp
from eventbus.operations.state import TaskTransition
from tests.eventbus.backends.operation import REF, changes, data, events_of, joined, start


def record(ends, *transitions):
    (published,) = ends.publisher.publish([RecordTransitions("user:42", REF.op, transitions, event_stamp("a label"))])
    return published.counts


async def test_an_operation_from_plan_to_end(ends):
    record(ends, TaskTransition("plan", planned=2), TaskTransition("published", "starter", internal=True))
    record(
        ends,
        TaskTransition("published", "a", 1),
        TaskTransition("published", "b", 1),
        TaskTransition("done", "starter", internal=True),
    )
    assert await events_of(ends.reader) == [("operation.progress", data("queued", 0, 0, 2))]
    record(ends, TaskTransition("started", "a", 1))
    assert record(ends, TaskTransition("done", "a", 1)).done == 1
    counts = record(ends, TaskTransition("done", "b", 1))
    assert (counts.state, counts.done, counts.total) == ("succeeded", 2, 2)
    assert await events_of(ends.reader) == [
        ("operation.started", data("running", 0, 0, 2)),
        ("operation.progress", data("succeeded", 2, 0, 2)),
        ("operation.succeeded", data("succeeded", 2, 0, 2)),
    ]


async def test_a_progress_is_full_only_at_the_end(ends):
    """An internal task still runs when the only task of the plan is done."""
    record(
        ends,
        TaskTransition("plan", planned=1),
        TaskTransition("published", "a", 1),
        TaskTransition("published", "celery.unlock", internal=True),
        TaskTransition("started", "a", 1),
    )
    assert record(ends, TaskTransition("done", "a", 1)).state == "running"
    assert ("operation.progress", data("running", 1, 0, 1)) not in await events_of(ends.reader)
    record(ends, TaskTransition("done", "celery.unlock", internal=True))
    assert ("operation.progress", data("succeeded", 1, 0, 1)) in await events_of(ends.reader)


async def test_dynamic_tasks_raise_the_total_and_internal_ones_do_not(ends):
    record(
        ends, TaskTransition("plan", planned=1), TaskTransition("published", "a", 1), TaskTransition("published", "x")
    )
    assert record(ends, TaskTransition("published", "celery.unlock", internal=True)).total == 2
    record(ends, TaskTransition("done", "a", 1), TaskTransition("done", "x"))
    counts = record(ends, TaskTransition("done", "celery.unlock", internal=True))
    assert (counts.state, counts.done, counts.total) == ("succeeded", 2, 2)


async def test_a_task_counts_once_for_any_number_of_reports(ends):
    record(
        ends,
        TaskTransition("plan", planned=2),
        TaskTransition("published", "a", 1),
        TaskTransition("published", "b", 1),
    )
    for _ in range(3):
        counts = record(
            ends, TaskTransition("published", "a", 1), TaskTransition("done", "a", 1), TaskTransition("failed", "a", 1)
        )
    assert (counts.done, counts.failed, counts.state) == (1, 0, "running")


async def test_a_failure_is_published_unless_the_task_had_ended(ends):
    record(
        ends,
        TaskTransition("plan", planned=3),
        TaskTransition("published", "a", 1),
        TaskTransition("published", "b", 1),
        TaskTransition("done", "b", 1),
    )
    task_json = '"task":"t","name":"n","retries":0,"error":"WorkerLost: \u00e4"'
    for task in ("a", "a", "b"):
        counts = record(ends, TaskTransition("failed", task, 1, task_json=task_json))
    assert (counts.state, counts.done, counts.failed) == ("failed", 1, 1)
    changes_seen = [data for type_, data in await events_of(ends.reader) if type_ == "task.failed"]
    assert changes_seen == [{"task": "t", "name": "n", "retries": 0, "error": "WorkerLost: ä"}]


async def test_an_end_that_is_heard_of_before_its_publication_ends_nothing(ends):
    assert record(ends, TaskTransition("plan", planned=1), TaskTransition("done", "a", 1)).state == "running"
    assert record(ends, TaskTransition("published", "a", 1)).state == "succeeded"


async def test_a_failed_task_fails_the_operation_when_all_have_ended(ends):
    record(
        ends,
        TaskTransition("plan", planned=3),
        TaskTransition("published", "a", 1),
        TaskTransition("published", "b", 1),
    )
    assert record(ends, TaskTransition("failed", "a", 1)).state == "running"
    counts = record(ends, TaskTransition("done", "b", 1))
    assert (counts.state, counts.done, counts.failed, counts.total) == ("failed", 1, 1, 3)
    assert (await events_of(ends.reader))[-1] == ("operation.failed", data("failed", 1, 1, 3))
    assert record(ends, TaskTransition("done", "late", 1)).state == "failed"


async def test_a_chords_body_is_awaited_though_all_that_was_heard_of_has_ended(real):
    real.record(TaskTransition("plan", planned=2), start("a", acks_late=True))
    # The message came twice: the second run ends while the first one is about to publish the body.
    real.record(start("a", acks_late=True))
    counts = real.record(joined("a"))
    assert (counts.state, counts.done, counts.total) == ("running", 1, 2)
    real.record(TaskTransition("published", "body", 1), joined("a"))
    assert real.expire_leases().next_check == 0, "it is heard of"
    counts = real.record(start("body"), TaskTransition("done", "body", 1))
    assert (counts.state, counts.done, counts.total) == ("succeeded", 2, 2)
    assert await changes(real) == ["started", "succeeded"]


async def test_an_awaited_body_that_does_not_come_is_a_failure(real):
    gateway = RedisOperations(real.settings, real.reader)
    real.record(TaskTransition("plan", planned=2), start("a"), joined("a"))
    next_check = real.expire_leases().next_check
    assert real.client.get("42", "9").tasks == ()
    real.record(joined("a"))
    assert real.expire_leases().next_check == next_check, "it is not awaited forever"
    real.age("")
    assert (await gateway.expire_leases("user:42 9")).counts.state == "failed"
    assert await changes(real) == ["started", "task.failed", "failed"]


@pytest.mark.parametrize("kinds", [["ignored"], ["joined", "ignored"]])
async def test_tasks_after_an_ignored_one_are_not_awaited(real, kinds):
    real.record(TaskTransition("plan", planned=3), *(start(f"a{i}") for i in range(len(kinds))))
    counts = real.record(*(TaskTransition(kind, f"a{i}", 1, lease=60_000) for i, kind in enumerate(kinds)))
    assert (counts.state, counts.done, counts.total) == ("succeeded", len(kinds), len(kinds))


async def test_without_a_lease_the_rest_is_awaited_for_a_minute(real):
    real.record(TaskTransition("plan", planned=2), start("a", lease=0))
    assert real.record(TaskTransition("joined", "a", 1)).state == "running"
    assert 0 < real.expire_leases().next_check - now_ms() <= 60_000


async def test_an_awaiting_operation_can_be_cancelled(real):
    real.record(TaskTransition("plan", planned=2), start("a"), joined("a"))
    assert real.cancel().state == "cancelled"


async def test_a_queued_operation_ends_immediately_when_cancelled(real):
    real.record(
        TaskTransition("plan", planned=2), TaskTransition("published", "a", 1), TaskTransition("published", "b", 1)
    )
    counts = real.cancel()
    assert (counts.state, counts.done, counts.failed, counts.total) == ("cancelled", 0, 0, 2)
    assert real.cancel().state == "cancelled", "the second call has no effect"
    assert await changes(real) == ["cancelled"]


async def test_a_running_operation_ends_when_cancelled_tasks_have_stopped(real):
    real.record(TaskTransition("plan", planned=3), *(TaskTransition("published", task, 1) for task in "abc"))
    real.record(start("a"), start("b"))
    assert real.cancel().state == "cancelling"
    assert real.record(TaskTransition("revoked", "c", 1)).failed == 0, (
        "a revoked task of a cancelled operation has not failed"
    )
    assert real.record(TaskTransition("done", "a", 1)).state == "cancelling"
    counts = real.record(TaskTransition("revoked", "b", 1))
    assert (counts.state, counts.done, counts.failed) == ("cancelled", 1, 0)
    assert await changes(real) == ["started", "cancelling", "cancelled"]


async def test_a_cancellation_can_come_too_late(real):
    real.record(TaskTransition("plan", planned=1), TaskTransition("published", "a", 1), start("a"))
    real.cancel()
    assert real.record(TaskTransition("done", "a", 1)).state == "succeeded"
    assert real.cancel().state == "succeeded"


async def test_a_task_that_expires_or_is_revoked_has_failed(real):
    real.record(TaskTransition("plan", planned=1), TaskTransition("published", "a", 1))
    counts = real.record(TaskTransition("revoked", "a", 1))
    assert (counts.state, counts.failed) == ("failed", 1)


async def test_a_worker_is_lost_and_its_message_is_not_delivered_again(real):
    real.record(
        TaskTransition("plan", planned=2), TaskTransition("published", "a", 1), TaskTransition("published", "b", 1)
    )
    real.record(start("a"), start("b"))
    assert real.expire_leases().counts.state == "running"
    real.age("a")
    found = real.expire_leases()
    assert (found.counts.state, found.counts.failed) == ("running", 1)
    assert found.next_check > 1_000_000_000_000, "b's lease"
    failed = {
        "task": "t-a",
        "name": "shop.a",
        "retries": 0,
        "error": "WorkerLost: the worker that ran this task is gone",
    }
    assert ("task.failed", failed) in await real.events()
    assert real.record(TaskTransition("done", "b", 1)).state == "failed"
    assert real.expire_leases().next_check == 0


async def test_a_worker_is_lost_and_its_message_is_delivered_again(real):
    real.record(TaskTransition("plan", planned=1), TaskTransition("published", "a", 1), start("a", acks_late=True))
    real.age("a")
    assert real.expire_leases().counts.state == "lost"
    assert [(task.name, task.lost) for task in real.client.get("42", "9").tasks] == [("shop.a", True)]
    assert real.record(start("a", acks_late=True)).state == "running"
    assert real.record(TaskTransition("done", "a", 1)).state == "succeeded"
    assert await changes(real) == ["started", "lost", "resumed", "succeeded"]


async def test_a_task_lost_for_too_long_has_failed(real):
    real.record(TaskTransition("plan", planned=1), TaskTransition("published", "a", 1), start("a", acks_late=True))
    for state in ("lost", "failed"):
        real.age("a")
        assert real.expire_leases().counts.state == state


async def test_a_renewed_lease_does_not_expire(real):
    real.record(TaskTransition("plan", planned=1), TaskTransition("published", "a", 1), start("a", lease=1))
    assert real.client.renew({REF: ["a", "unknown"]}, 60) == {}
    assert real.expire_leases().counts.state == "running"
    real.record(TaskTransition("released", "a", 1))
    assert real.client.renew({REF: ["a"]}, 62) == {}, "the task waits for its retry"


async def test_a_lease_that_is_renewed_too_late(real):
    real.record(
        TaskTransition("plan", planned=2), start("a", acks_late=True), start("b"), TaskTransition("published", "c", 1)
    )
    real.age("a")
    real.age("b")
    assert real.expire_leases().counts.state == "lost"
    # The broker does not deliver b's message again, so b has failed for good.
    assert real.client.renew({REF: ["a", "b"]}, 60) == {REF: ["a"]}
    assert real.record(start("a", acks_late=True)).state == "running"


async def test_both_backends_publish_the_same_events(bus_settings, real):
    broker = MemoryBroker(bus_settings)
    publisher = MemoryPublisher(broker)
    for batch in (
        [TaskTransition("plan", planned=1), TaskTransition("published", "a", 1)],
        [start("a")],
        [TaskTransition("failed", "a", 1)],
    ):
        publisher.publish([RecordTransitions("user:42", REF.op, batch, event_stamp("a label"))])
        real.record(*batch)
    assert await events_of(MemoryReader(broker)) == await real.events()
    in_process, in_redis = [await reader.read("user:42", 0) for reader in (MemoryReader(broker), real.reader)]
    for one, other in zip((*in_process.log, *in_process.snapshot), (*in_redis.log, *in_redis.snapshot), strict=True):
        kept, known = getattr(one, "record", one), getattr(other, "record", other)
        assert (kept.lane, kept.keep, kept.key, kept.expires) == (known.lane, known.keep, known.key, known.expires)
