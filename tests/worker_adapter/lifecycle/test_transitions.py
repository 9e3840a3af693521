"""Effects of the transitions that workers record, in Redis and in the memory backend."""

import datetime as dt
import json

import pytest

from eventbus import Bus, BusSettings
from eventbus.operations.events import OperationRef
from eventbus.operations.state import TaskTransition
from tests.worker_adapter.listening import history
from worker_adapter.context.headers import delay_of

STARTER = TaskTransition("published", "starter", planned=1, internal=True)


@pytest.fixture(params=["redis", "memory"])
def record(request, redis_url):
    """Record transitions, one request each; return the events so far, with done, failed and total."""
    bus = Bus(BusSettings(redis_url=redis_url if request.param == "redis" else "memory://"))
    user = f"marks-{request.node.name.partition('[')[0]}"

    def recorded(*transitions):
        for transition in transitions:
            bus.record_transition(OperationRef(user, "op"), transition)
            assert bus.flush(5)
        log = history(redis_url, user).log if bus.broker is None else bus.broker.read(f"user:{user}", 0).log
        said = [(entry.record.type, json.loads(entry.record.event)["data"]) for entry in log]
        return [(type_.removeprefix("operation."), d["done"], d["failed"], d["total"]) for type_, d in said]

    yield recorded
    bus.close()


def test_a_task_that_has_started_has_been_published(record):
    """The publisher of a task was killed before it could record it."""
    said = record(
        STARTER,
        TaskTransition("started", "a"),
        TaskTransition("done", "starter", internal=True),
        TaskTransition("done", "a"),
    )
    assert said == [("started", 0, 0, 1), ("succeeded", 1, 0, 1)]


def test_an_internal_task_does_not_start_the_operation(record):
    queued = record(
        TaskTransition("plan", planned=1),
        STARTER,
        TaskTransition("published", "a", planned=1),
        TaskTransition("done", "starter", planned=1, internal=True),
        TaskTransition("started", "unlock", internal=True),
        TaskTransition("done", "unlock", internal=True),
    )
    assert queued == []
    assert record(TaskTransition("started", "a", planned=1)) == [("started", 0, 0, 1)]
    assert record(TaskTransition("done", "a", planned=1))[1:] == [("succeeded", 1, 0, 1)]


def test_a_start_that_failed_is_a_failure(record):
    said = record(TaskTransition("plan", planned=2), STARTER, TaskTransition("failed", "starter", planned=1))
    assert said[-1] == ("failed", 0, 1, 2)


@pytest.mark.parametrize("zone", [dt.UTC, None])
def test_the_delay_of_a_message_with_a_countdown(zone):
    eta = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)).replace(tzinfo=zone)
    assert 3_500_000 < delay_of({"eta": eta.isoformat()}) <= 3_600_000


@pytest.mark.parametrize("eta", [None, "2020-01-01T00:00:00+00:00", "tomorrow", 7])
def test_the_delay_of_a_message_without_a_countdown(eta):
    assert delay_of({"eta": eta}) == 0
