"""The state machine by example: what clients see of the rules that Lua and Python share."""

from __future__ import annotations

from eventbus.operations.state import (
    AWAIT_MS,
    PARTS_MISSING,
    SILENCE,
    TASK_UNREPORTED,
    WORKER_LOST,
    Counts,
    OperationEvent,
    TaskTransition,
    TransitionKind,
)
from eventbus.operations.state_machine import OperationStateMachine

LEASE, PATIENCE = 60_000, 3_600_000


def did(
    kind: TransitionKind,
    task: str = "a",
    planned: int = 1,
    *,
    lease: int = 0,
    late: bool = True,
    internal: bool = False,
) -> TaskTransition:
    json = f'"task":"{task}"' if kind in ("published", "started") else ""
    return TaskTransition(kind, task, planned, internal=internal, lease=lease, acks_late=late, task_json=json)


def plan(tasks: int) -> TaskTransition:
    return TaskTransition("plan", planned=tasks)


def names(events: list[tuple[OperationEvent, Counts]]) -> list[OperationEvent]:
    return [event for event, _ in events]


def running(tasks: int = 1, *, late: bool = True, patience: int = 0) -> OperationStateMachine:
    machine = OperationStateMachine(patience=patience)
    machine.apply([plan(tasks), did("published", lease=0), did("started", lease=LEASE, late=late)], 1_000)
    return machine


def test_nothing_has_happened_yet() -> None:
    machine = OperationStateMachine()
    assert machine.counts() == Counts("queued", 0, 0, 0)
    assert machine.next_check == 0
    assert machine.expire_leases(10**12, LEASE) == []


def test_from_the_plan_to_the_end() -> None:
    machine = OperationStateMachine()
    assert machine.apply([plan(2), did("published")], 1_000) == [("progress", Counts("queued", 0, 0, 2))]
    started = machine.apply([did("started", lease=LEASE)], 2_000)
    assert started == [("started", Counts("running", 0, 0, 2)), ("progress", Counts("running", 0, 0, 2))]
    assert (machine.queued, machine.started, machine.ended) == (1_000, 2_000, 0)
    assert machine.next_check == 2_000 + LEASE
    assert names(machine.apply([did("published", "b"), did("done")], 3_000)) == ["progress"]
    end = machine.apply([did("done", "b")], 4_000)
    assert end == [("progress", Counts("succeeded", 2, 0, 2)), ("succeeded", Counts("succeeded", 2, 0, 2))]
    assert (machine.ended, machine.next_check) == (4_000, 0)
    assert machine.apply([did("failed")], 5_000) == []
    assert machine.cancel(5_000) == []


def test_a_task_that_the_plan_does_not_name_raises_the_total_unless_it_is_internal() -> None:
    machine = running()
    machine.apply([did("published", "more", 0), did("published", "inner", 0, internal=True)], 2_000)
    assert machine.counts().total == 2
    machine.apply([did("done"), did("done", "more", 0)], 3_000)
    assert machine.counts() == Counts("running", 1, 0, 2), "a bar is full only at the end"
    machine.apply([did("done", "inner", 0, internal=True)], 3_000)
    assert machine.counts() == Counts("succeeded", 2, 0, 2)


def test_a_lease_that_ends_loses_the_task_and_later_fails_it() -> None:
    machine = running()
    end = 1_000 + LEASE
    assert machine.expire_leases(end - 1, LEASE) == []
    assert names(machine.expire_leases(end, LEASE)) == ["progress", "lost"]
    assert machine.next_check == end + LEASE
    assert names(machine.expire_leases(end + LEASE, LEASE)) == ["progress", "failed"]
    assert machine.counts() == Counts("failed", 0, 1, 1)
    assert machine.failures == [f'"task":"a","error":"{WORKER_LOST}"']


def test_a_lost_task_runs_again() -> None:
    machine = running()
    machine.expire_leases(1_000 + LEASE, LEASE)
    assert names(machine.apply([did("started", lease=LEASE)], 70_000)) == ["progress", "resumed"]
    assert (machine.lost, machine.running) == (0, 1)


def test_a_task_whose_message_does_not_come_again_fails_with_its_lease() -> None:
    machine = running(late=False)
    assert names(machine.expire_leases(1_000 + LEASE, LEASE)) == ["progress", "failed"]


def test_a_cancelled_operation_ends_when_nothing_runs() -> None:
    machine = running(2)
    machine.apply([did("published", "b")], 2_000)
    assert names(machine.cancel(3_000)) == ["progress", "cancelling"]
    assert machine.cancel(4_000) == []
    assert machine.cancelled == 3_000
    assert names(machine.apply([did("revoked")], 5_000)) == ["progress", "cancelled"]
    assert machine.counts() == Counts("cancelled", 0, 0, 2), "a revoked task of a cancelled operation has not failed"


def test_a_revoked_task_of_an_operation_that_is_not_cancelled_has_failed() -> None:
    machine = running()
    assert names(machine.apply([did("revoked")], 2_000)) == ["progress", "failed"]


def test_a_cancellation_that_comes_too_late_is_a_success() -> None:
    machine = running()
    machine.cancel(2_000)
    assert names(machine.apply([did("done")], 3_000)) == ["progress", "succeeded"]


def test_a_plan_with_more_tasks_than_were_published_fails_after_a_while() -> None:
    machine = running(2)
    assert names(machine.apply([did("done")], 2_000)) == ["progress"]
    assert machine.next_check == 2_000 + AWAIT_MS
    assert names(machine.expire_leases(2_000 + AWAIT_MS, LEASE)) == ["progress", "failed"]
    assert machine.counts() == Counts("failed", 1, 0, 2)
    assert machine.failures == [f'"task":"","name":"","retries":0,"error":"{PARTS_MISSING}"']


def test_a_chord_is_awaited_as_long_as_its_task_says() -> None:
    machine = running(2)
    machine.apply([did("joined", lease=5_000)], 2_000)
    assert machine.next_check == 7_000
    machine.apply([did("published", "body")], 3_000)
    assert machine.next_check == 0, "nothing is awaited"
    machine.apply([did("done", "body")], 4_000)
    assert machine.counts() == Counts("succeeded", 2, 0, 2)


def test_what_follows_an_ignored_task_may_not_come() -> None:
    machine = running(3)
    assert names(machine.apply([did("ignored")], 2_000)) == ["progress", "succeeded"]
    assert machine.counts() == Counts("succeeded", 1, 0, 1), "the end decides the total"


def test_a_task_that_ends_before_its_publication_is_reported_counts_once() -> None:
    machine = OperationStateMachine()
    machine.apply([plan(1), did("done")], 1_000)
    assert machine.counts() == Counts("running", 0, 0, 1)
    assert names(machine.apply([did("published")], 2_000)) == ["progress", "succeeded"]
    assert (machine.open, machine.early) == (0, 0)


def test_a_second_run_of_the_same_message_changes_nothing() -> None:
    machine = running(2)
    machine.apply([did("done"), did("started"), did("failed"), did("done")], 2_000)
    assert machine.counts() == Counts("running", 1, 0, 2)
    assert (machine.running, machine.open) == (0, 0)


def test_a_released_task_waits_again_and_is_not_lost() -> None:
    machine = running(patience=PATIENCE)
    assert machine.apply([did("released", lease=9_000)], 2_000) == []
    assert (machine.tasks, machine.running, machine.task_json) == ({"a": "p"}, 0, {"a": '"task":"a"'})
    assert machine.due == 11_000
    assert machine.leases == {SILENCE: 1_000 + PATIENCE}


def test_an_operation_of_which_nothing_is_heard_fails_after_its_patience() -> None:
    machine = OperationStateMachine(patience=PATIENCE)
    machine.apply([plan(1), did("published", lease=3 * PATIENCE)], 1_000)
    assert machine.next_check == 1_000 + PATIENCE
    assert machine.expire_leases(1_000 + PATIENCE, LEASE) == []
    end = 1_000 + 4 * PATIENCE
    assert machine.next_check == end, "its countdown counts"
    assert machine.expire_leases(end - 1, LEASE) == []
    assert names(machine.expire_leases(end, LEASE)) == ["progress", "failed"]
    assert machine.failures == [f'"task":"a","error":"{TASK_UNREPORTED}"']


def test_a_report_begins_the_patience_anew() -> None:
    machine = OperationStateMachine(patience=PATIENCE)
    machine.apply([plan(2), did("published")], 1_000)
    machine.apply([did("published", "b")], 2_000)
    assert machine.expire_leases(1_000 + PATIENCE, LEASE) == []
    assert machine.next_check == 1_000 + 2 * PATIENCE
    assert machine.expire_leases(1_999 + PATIENCE, LEASE) == []
    assert names(machine.expire_leases(1_000 + 2 * PATIENCE, LEASE)) == ["progress", "failed"]
    assert machine.counts() == Counts("failed", 0, 2, 2)


def test_a_task_that_ended_unannounced_is_not_unreported() -> None:
    machine = OperationStateMachine(patience=PATIENCE)
    machine.apply([plan(1), did("done")], 1_000)
    assert names(machine.expire_leases(1_000 + PATIENCE, LEASE)) == ["progress", "succeeded"]
    assert machine.failures == []


def test_a_running_task_may_be_silent_as_long_as_its_lease_is_renewed() -> None:
    machine = running(patience=PATIENCE)
    machine.leases["a"] = 10 * PATIENCE
    assert machine.expire_leases(1_000 + PATIENCE, LEASE) == []
    assert machine.next_check == 1_000 + 2 * PATIENCE


def test_without_a_plan_the_total_is_the_number_of_tasks() -> None:
    machine = OperationStateMachine()
    machine.apply([did("published", "a", 0)], 1_000)
    assert machine.counts() == Counts("queued", 0, 0, 1)
