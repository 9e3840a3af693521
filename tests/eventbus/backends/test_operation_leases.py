"""Leases of tasks in Redis and in the process: taken over, expired, evicted, ended."""

from __future__ import annotations

from datetime import timedelta

import pytest

from eventbus.backends.ports import RecordTransitions
from eventbus.operations.changes import event_stamp
from eventbus.operations.state import TaskTransition
from eventbus.operations.state_machine import OperationStateMachine
from tests.conftest import wait_until
from tests.eventbus.backends.operation import REF, Redis, changes, joined, start


async def test_a_run_without_a_lease_removes_the_lease_of_the_run_before(real):
    """Otherwise the old lease fails the operation while the task runs."""
    real.record(TaskTransition("plan", planned=1), start("a"))
    real.record(start("a", lease=0))
    assert real.expire_leases().next_check == 0
    real.age("a")  # no effect: there is no lease
    assert real.expire_leases().counts.state == "running"


async def test_an_expired_task_without_a_description_fails_without_an_event(real):
    real.record(
        TaskTransition("plan", planned=1), TaskTransition("started", "a", 1, lease=60_000), start("b", acks_late=True)
    )
    real.age("a")
    found = real.expire_leases()
    assert (found.expired, found.counts.failed) == (1, 1)
    assert "task.failed" not in [type_ for type_, _ in await real.events()], "each event is valid JSON, too"


async def test_the_leases_of_an_evicted_operation_are_removed(real):
    real.record(TaskTransition("plan", planned=1), start("a"))
    counts, _, leases = real.keys.operation("user:42", REF.op)
    real.end.execute(("DEL", counts))
    assert real.expire_leases().counts is None
    assert real.end.execute(("EXISTS", leases)) == [0]


async def test_a_renewed_lease_of_a_task_that_waits_for_its_retry_is_none(real):
    """``renew`` reports no lost task, and makes no lease for a task that does not run."""
    real.record(TaskTransition("plan", planned=1), start("a"), TaskTransition("released", "a", 1))
    assert real.client.renew({REF: ["a"]}, 60) == {}
    assert real.expire_leases().next_check == 0
    assert real.client.get("42", "9").tasks == ()
    real.record(start("a", acks_late=True))
    real.age("a")
    assert real.expire_leases().counts.state == "lost"
    real.record(TaskTransition("released", "a", 1))
    assert real.client.renew({REF: ["a"]}, 60) == {}, "a released task is not lost"
    assert await changes(real) == ["started", "lost", "resumed"]


async def test_a_task_that_runs_again_after_a_release_counts_as_running(real):
    real.record(TaskTransition("plan", planned=1), start("a"), TaskTransition("released", "a", 1))
    real.record(start("a"))
    assert real.cancel().state == "cancelling"
    assert real.record(TaskTransition("released", "a", 1)).state == "cancelled"


@pytest.mark.parametrize("kind", ["done", "failed", "revoked"])
def test_an_ended_operation_does_not_change(kind):
    machine = OperationStateMachine()
    machine.apply([TaskTransition("plan", planned=1), start("a"), TaskTransition(kind, "a", 1)], 5)
    before = machine.counts()
    assert machine.next_check == 0
    assert machine.cancel(6) == []
    assert machine.expire_leases(10**9, 1) == []
    assert machine.apply([start("b")], 7) == []
    assert (machine.counts(), machine.cancelled, machine.ended) == (before, 0, 5)


def test_the_wait_for_a_chords_body_has_an_end_that_later_reports_do_not_move():
    machine = OperationStateMachine()
    machine.apply([TaskTransition("plan", planned=3), start("a"), joined("a")], 1_000)
    assert machine.next_check == 61_000
    machine.apply([TaskTransition("done", "a", 1)], 2_000)
    assert machine.next_check == 61_000
    machine.apply([TaskTransition("published", "b", 1)], 3_000)
    assert machine.next_check == 0, "a published task ends the wait"
    machine.apply([TaskTransition("done", "b", 1)], 4_000)
    assert machine.next_check == 64_000, "and its end begins a new one"
    assert machine.expire_leases(64_000, 1)[-1][0] == "failed"


def test_a_failure_or_an_ignored_task_ends_the_wait():
    for kind, state in (("failed", "failed"), ("ignored", "succeeded")):
        machine = OperationStateMachine()
        machine.apply([TaskTransition("plan", planned=3), start("a"), start("b"), joined("a")], 1_000)
        machine.apply([TaskTransition(kind, "b", 1)], 2_000)
        assert (machine.state, machine.next_check) == (state, 0), kind


def test_a_lost_operation_that_is_cancelled_has_ended():
    machine = OperationStateMachine()
    machine.apply([TaskTransition("plan", planned=1), start("a", acks_late=True)], 1_000)
    machine.expire_leases(61_000, 10)
    assert machine.state == "lost"
    assert [change for change, _ in machine.cancel(62_000)] == ["progress", "cancelled"]


HOUR = 3_600


@pytest.fixture
async def brief(bus_settings):
    """An operation whose channel lives for a second, and whose state lives for an hour."""
    limits = {"user_ttl": timedelta(seconds=1), "part_patience": timedelta(hours=1)}
    own = Redis(bus_settings.model_copy(update=limits))
    yield own
    await own.aclose()


def ttls(real):
    names = (*real.keys.operation("user:42", REF.op), real.keys.operations("user:42"))
    return [real.end.execute(("TTL", name))[0] for name in names]


async def test_an_operation_outlives_the_log_of_its_channel_until_it_ends(brief):
    """A task with a countdown, or one that waits in a long queue, reports when the channel has expired."""
    brief.record(TaskTransition("plan", planned=2), *(TaskTransition("published", task, 1) for task in "ab"))
    brief.record(start("a"), TaskTransition("failed", "a", 1))
    log = brief.keys.channel("user:42")[1]
    wait_until(lambda: brief.end.execute(("EXISTS", log)) == [0], "the end of the log")
    counts = brief.record(start("b"))
    assert (counts.state, counts.failed, counts.total) == ("running", 1, 2)
    counts = brief.record(TaskTransition("done", "b", 1))
    assert (counts.state, counts.done, counts.failed, counts.total) == ("failed", 1, 1, 2)


async def test_each_change_and_each_renewal_keeps_an_open_operation(brief):
    steps = [
        [TaskTransition("plan", planned=3), TaskTransition("published", "a", 1)],
        [start("a"), start("b")],
        [joined("a")],
        [TaskTransition("done", "b", 1)],
    ]
    for step in steps:
        brief.record(*step)
        assert all(HOUR - 5 <= ttl <= HOUR * 1.2 for ttl in ttls(brief)), step
        brief.client.renew({REF: ["a", "b"]}, 60)
        assert all(HOUR - 5 <= ttl <= HOUR * 1.2 for ttl in ttls(brief)), step


async def test_a_renewal_does_not_shorten_the_life_of_an_operation_with_a_later_task(brief):
    """A task runs and renews its lease while another one of the operation has an ETA in ten days."""
    brief.record(
        TaskTransition("plan", planned=2), TaskTransition("published", "b", 1, lease=240 * HOUR * 1000), start("a")
    )
    before = ttls(brief)
    assert min(before) > 240 * HOUR
    brief.client.renew({REF: ["a"]}, 60)
    assert [ttl // HOUR for ttl in ttls(brief)] == [ttl // HOUR for ttl in before]


async def test_an_operation_that_ends_in_one_call_leaves_the_list_to_the_others(brief):
    brief.record(TaskTransition("plan", planned=1), TaskTransition("published", "a", 1))
    whole = [TaskTransition("plan", planned=1), start("a"), TaskTransition("done", "a", 1)]
    (published,) = brief.end.publish([RecordTransitions("user:42", "short", whole, event_stamp(""))])
    assert published.counts.state == "succeeded"
    assert ttls(brief)[-1] >= HOUR - 5


async def test_a_renewal_keeps_the_operation_alive(real):
    real.record(TaskTransition("plan", planned=1), start("a"))
    names = real.keys.operation("user:42", REF.op)
    real.end.execute(*(("EXPIRE", name, 5) for name in names))
    real.client.renew({REF: ["a"]}, 60)
    assert min(real.end.execute(*(("TTL", name) for name in names))) >= 60
