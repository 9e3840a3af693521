"""Operations in Redis are listed, and the index of their leases follows them."""

from __future__ import annotations

from eventbus.backends.ports import RecordTransitions
from eventbus.backends.redis.operation_store import RedisOperations
from eventbus.backends.redis.publisher import RedisPublisher
from eventbus.operations.changes import event_stamp
from eventbus.operations.events import OperationRef
from eventbus.operations.state import TaskTransition
from tests.eventbus.backends.operation import REF, Redis, start


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


async def test_no_more_running_tasks_are_shown_than_the_settings_allow(bus_settings):
    few = Redis(bus_settings.model_copy(update={"running_shown": 2}))
    few.record(TaskTransition("plan", planned=3), *(start(task, lease=60_000 + n) for n, task in enumerate("abc")))
    assert [task.name for task in few.client.get("42", REF.op).tasks] == ["shop.a", "shop.b"], "the next to expire"
    few.record(TaskTransition("done", "a", 1))
    assert len(few.client.get("42", REF.op).tasks) == 2
    await few.aclose()


async def test_a_label_is_not_treated_as_a_state(real):
    real.end.publish([RecordTransitions("user:42", "9", [TaskTransition("plan", planned=1)], event_stamp("state"))])
    assert [(info.label, info.state) for info in real.client.of("42", states=["queued"])] == [("state", "queued")]
