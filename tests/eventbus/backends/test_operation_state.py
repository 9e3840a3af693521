"""Operations are counted: Lua in Redis and Python in the process do the same, in any order of reports."""

from __future__ import annotations

import json
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventbus.backends.memory.adapters import MemoryBroker, MemoryPublisher, MemoryReader
from eventbus.backends.ports import RecordTransitions
from eventbus.backends.redis.operation_client import Operations
from eventbus.backends.redis.operation_store import RedisOperations
from eventbus.backends.redis.publisher import RedisPublisher
from eventbus.backends.redis.reader import RedisReader
from eventbus.backends.redis.scripts import operations as calls
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.operations.changes import event_stamp
from eventbus.operations.events import OperationRef
from eventbus.operations.state import ENDED, TaskTransition
from eventbus.operations.state_machine import OperationStateMachine

REF = OperationRef("42", "9")


def record(ends, *transitions):
    (published,) = ends.publisher.publish([RecordTransitions("user:42", REF.op, transitions, event_stamp("a label"))])
    return published.counts


async def events_of(reader):
    history = await reader.read("user:42", 0)
    events = [json.loads(entry.record.event) for entry in history.log]
    events += [json.loads(record.event) for record in history.snapshot]
    return [(e["type"], e["data"]) for e in sorted(events, key=lambda e: e["offset"])]


async def test_an_operation_from_plan_to_end(ends):
    record(ends, TaskTransition("plan", planned=2), TaskTransition("published", "starter", internal=True))
    record(
        ends,
        TaskTransition("published", "a", 1),
        TaskTransition("published", "b", 1),
        TaskTransition("done", "starter", internal=True),
    )
    assert await events_of(ends.reader) == [("operation.progress", _data("queued", 0, 0, 2))]
    record(ends, TaskTransition("started", "a", 1))
    assert record(ends, TaskTransition("done", "a", 1)).done == 1
    counts = record(ends, TaskTransition("done", "b", 1))
    assert (counts.state, counts.done, counts.total) == ("succeeded", 2, 2)
    assert await events_of(ends.reader) == [
        ("operation.started", _data("running", 0, 0, 2)),
        ("operation.progress", _data("succeeded", 2, 0, 2)),
        ("operation.succeeded", _data("succeeded", 2, 0, 2)),
    ]


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
    assert record(ends, TaskTransition("done", "a", 1)).state == "running"
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
    assert (await events_of(ends.reader))[-1] == ("operation.failed", _data("failed", 1, 1, 3))
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
    assert await changes(real) == ["started", "failed"]


@pytest.mark.parametrize("kinds", [["done"], ["joined", "ignored"]])
async def test_what_is_left_out_is_not_awaited(real, kinds):
    real.record(TaskTransition("plan", planned=3), *(start(f"a{i}") for i in range(len(kinds))))
    counts = real.record(*(TaskTransition(kind, f"a{i}", 1, lease=60_000) for i, kind in enumerate(kinds)))
    assert (counts.state, counts.done, counts.total) == ("succeeded", len(kinds), len(kinds))


async def test_without_a_lease_nothing_is_awaited(real):
    real.record(TaskTransition("plan", planned=2), start("a", lease=0))
    assert real.record(TaskTransition("joined", "a", 1)).state == "succeeded"


async def test_an_awaiting_operation_can_be_cancelled(real):
    real.record(TaskTransition("plan", planned=2), start("a"), joined("a"))
    assert real.cancel().state == "cancelled"


def _data(state, done, failed, total):
    return {"operation": "9", "label": "a label", "state": state, "done": done, "failed": failed, "total": total}


def joined(task):
    return TaskTransition("joined", task, 1, lease=60_000)


def start(task, planned=1, lease=60_000, acks_late=False):
    task_json = f'"task":"t-{task}","name":"shop.{task}","retries":0'
    return TaskTransition("started", task, planned, lease=lease, acks_late=acks_late, task_json=task_json)


class Redis:
    """An operation in Redis, used like a worker and a gateway do."""

    def __init__(self, settings):
        self.settings, self.keys = settings, Keys(settings.key_prefix)
        self.end, self.reader = RedisPublisher(settings), RedisReader(settings)
        self.client = Operations(settings)

    def record(self, *transitions):
        (published,) = self.end.publish([RecordTransitions("user:42", REF.op, transitions, event_stamp("a label"))])
        return published.counts

    def cancel(self):
        return self.end.run(calls.cancel(self.settings, self.keys, "user:42", REF.op, event_stamp("")))

    def age(self, task):
        """Set the end of a lease to the past."""
        self.end.execute(("ZADD", self.keys.operation("user:42", REF.op)[2], "XX", 1, task))

    def expire_leases(self):
        return self.end.run(calls.expire_leases(self.settings, self.keys, "user:42", REF.op, event_stamp("")))

    async def events(self):
        return await events_of(self.reader)

    async def aclose(self):
        self.end.close()
        self.client.close()
        await self.reader.aclose()


@pytest.fixture
async def real(bus_settings):
    own = Redis(bus_settings)
    yield own
    await own.aclose()


async def changes(real):
    return [type_.removeprefix("operation.") for type_, _ in await real.events() if type_ != "operation.progress"]


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


async def test_cancelled_operations_are_found_among_others(real):
    other = OperationRef("42", "other")
    real.record(TaskTransition("plan", planned=1), TaskTransition("published", "a", 1))
    assert real.client.cancelled_of([REF, other]) == set()
    real.client.cancel(*REF)
    assert real.client.cancelled_of([REF, other]) == {REF}


async def test_operations_are_listed_the_newest_first(real):
    for op in ("first", "second", "third"):
        transitions = [TaskTransition("plan", planned=1), TaskTransition("published", "a", 1)]
        real.end.publish([RecordTransitions("user:42", op, transitions, event_stamp(f'the "{op}"/ä'))])
    real.client.cancel("42", "second")
    found = real.client.of("42")
    assert [(info.id, info.state) for info in found] == [
        ("third", "queued"),
        ("second", "cancelled"),
        ("first", "queued"),
    ]
    assert found[0].label == 'the "third"/ä'
    assert found[0].queued > 0
    assert found[1].ended >= found[1].cancelled >= found[1].queued
    assert [info.id for info in real.client.of("42", states=["cancelled"])] == ["second"]
    assert [info.id for info in real.client.of("42", limit=1)] == ["third"]
    assert real.client.of("nobody") == []
    assert [ref for ref, _ in real.client.cancelled(0)] == [("42", "second")]
    assert real.client.cancel("42", "never") is None


async def test_workers_get_no_cancellation_of_an_ended_operation(real):
    real.record(TaskTransition("plan", planned=1), TaskTransition("published", "a", 1), TaskTransition("done", "a", 1))
    assert real.client.cancel("42", REF.op).state == "succeeded"
    assert (await RedisOperations(real.settings, real.reader).cancel("42", REF.op)).state == "succeeded"
    assert real.client.cancelled(0) == []


async def test_the_list_is_bounded(real):
    small = real.settings.model_copy(update={"operations_limit": 2})
    end = RedisPublisher(small)
    for op in "abc":
        end.publish([RecordTransitions("user:42", op, [TaskTransition("plan", planned=1)], event_stamp(""))])
    end.close()
    assert [info.id for info in real.client.of("42")] == ["c", "b"]


async def test_the_index_of_leases_has_operations_with_running_tasks(real):
    gateway = RedisOperations(real.settings, real.reader)
    real.record(TaskTransition("plan", planned=1), TaskTransition("published", "a", 1), start("a"))
    assert await gateway.due(10) == [], "not yet"
    real.end.execute(("ZADD", real.keys.leases, 1, "user:42 9"))
    assert await gateway.due(10) == ["user:42 9"]
    real.age("a")
    found = await gateway.expire_leases("user:42 9")
    assert found.counts is not None
    assert found.counts.state == "failed"
    assert await gateway.due(10) == []
    assert (found.expired, found.lost) == (1, False)
    assert real.end.execute(("ZCARD", real.keys.leases)) == [0], "it has ended"


async def test_the_index_keeps_an_operation_whose_tasks_may_start(real):
    gateway = RedisOperations(real.settings, real.reader)
    real.record(
        TaskTransition("plan", planned=2),
        TaskTransition("published", "a", 1),
        start("a", acks_late=True),
        TaskTransition("published", "b", 1),
    )
    real.age("a")
    found = await gateway.expire_leases("user:42 9")
    assert (found.expired, found.lost) == (1, True)
    again = await gateway.expire_leases("user:42 9")
    assert (again.expired, again.lost, again.counts.state) == (0, False, "lost"), "reported once"
    real.record(TaskTransition("done", "a", 1))
    assert (await gateway.expire_leases("user:42 9")).next_check == 0
    (score,) = real.end.execute(("ZSCORE", real.keys.leases, "user:42 9"))
    assert score is not None, "b may be about to start"
    real.record(start("b", lease=1))
    (lower,) = real.end.execute(("ZSCORE", real.keys.leases, "user:42 9"))
    assert float(lower) < float(score)
    real.record(TaskTransition("done", "b", 1))
    await gateway.expire_leases("user:42 9")
    assert real.end.execute(("ZCARD", real.keys.leases)) == [0]


async def test_a_lease_of_an_evicted_task_is_removed(real):
    real.record(TaskTransition("plan", planned=1), TaskTransition("published", "a", 1), start("a"))
    real.end.execute(("DEL", real.keys.operation("user:42", REF.op)[1]))
    real.age("a")
    found = real.expire_leases()
    assert (found.counts.state, found.expired, found.next_check) == ("running", 0, 0)


async def test_the_index_drops_members_that_are_no_operations(real):
    gateway = RedisOperations(real.settings, real.reader)
    for member in ("what is this", "user:42 never", "user:a:b 7", "collection:7 9", "x"):
        real.end.execute(("ZADD", real.keys.leases, 1, member), ("EXPIRE", real.keys.leases, 60))
        assert (await gateway.expire_leases(member)).counts is None
    assert await gateway.due(10) == []


tasks = st.sampled_from(["a", "b", "c", "h"])
kinds = ["plan", "published", "published", "started", "started", "released", "done", "joined", "joined", "ignored"]
transitions = st.builds(
    lambda kind, task, planned, acks_late: (
        TaskTransition(
            kind,
            task,
            1 if task in "ab" else 0,
            internal=task == "h",
            lease=60_000 if kind in ("started", "joined") else 0,
            acks_late=acks_late,
            task_json=f'"task":"{task}","name":"n","retries":0' if kind == "started" else "",
        )
        if kind != "plan"
        else TaskTransition("plan", planned=planned)
    ),
    st.sampled_from([*kinds, "failed", "revoked"]),
    tasks,
    st.integers(0, 3),
    st.booleans(),
)
steps = st.one_of(
    st.lists(transitions, min_size=1, max_size=4),
    st.just("cancel"),
    st.one_of(tasks, st.just("")).map(lambda task: ("expire", task)),
)


@given(st.lists(steps, min_size=1, max_size=10))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_lua_and_python_count_alike(bus_settings, batches):
    real = Redis(bus_settings.model_copy(update={"key_prefix": f"t{uuid.uuid4().hex[:10]}"}))
    machine, ended, changes_seen = OperationStateMachine(), False, []
    for step in batches:
        if step == "cancel":
            counts = real.cancel()
            changes_seen += [] if counts is None else machine.cancel(5)
        elif isinstance(step, tuple):
            real.age(step[1])
            counts = real.expire_leases().counts
            if step[1] in machine.leases:
                machine.leases[step[1]] = 1
            changes_seen += [] if counts is None else machine.expire_leases(5, 60_000)
        else:
            counts = real.record(*step)
            changes_seen += machine.apply(step, 5)
        assert counts in (None, machine.counts())
        if counts is not None:
            assert counts.done + counts.failed <= counts.total
            assert not ended or counts.state in ENDED
            ended = counts.state in ENDED
            assert counts.state != "succeeded" or counts.done == counts.total
        assert machine.running == sum(state in "rR" for state in machine.tasks.values())
        assert machine.lost == sum(state == "l" for state in machine.tasks.values())
    expected = [(f"operation.{change}", _data(c.state, c.done, c.failed, c.total)) for change, c in changes_seen]
    progress = [fact for fact in expected if fact[0] == "operation.progress"][-1:]
    lasting = [fact for fact in expected if fact[0] != "operation.progress"]
    found = [fact for fact in await real.events() if fact[0] != "task.failed"]
    assert [fact for fact in found if fact[0] != "operation.progress"] == lasting
    assert [fact for fact in found if fact[0] == "operation.progress"] == progress
    await real.aclose()


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
