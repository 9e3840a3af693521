"""Operations always end: published tasks that no worker reports, and canvases that publish too little."""

from datetime import timedelta

import pytest

from eventbus.backends.redis.operation_store import RedisOperations
from eventbus.operations.state import PARTS_MISSING, TASK_UNREPORTED, TaskTransition
from tests.eventbus.backends.operation import REF, Redis, joined, start

PUBLISHED = '"task":"t-a","name":"shop.a","retries":0'


@pytest.fixture
async def patient(bus_settings):
    own = Redis(bus_settings.model_copy(update={"part_patience": timedelta(hours=1), "user_ttl": timedelta(seconds=9)}))
    yield own
    await own.aclose()


async def failures(real):
    return [(data["task"], data["error"]) for type_, data in await real.events() if type_ == "task.failed"]


def published(task, delay=0):
    return TaskTransition("published", task, 1, lease=delay, task_json=PUBLISHED.replace("-a", f"-{task}"))


async def test_a_published_task_that_no_worker_reports_has_failed(patient):
    patient.record(TaskTransition("plan", planned=2, lease=3_600_000), published("a"), published("b"))
    patient.record(start("b"), TaskTransition("done", "b", 1))
    assert patient.expire_leases().counts.state == "running"
    patient.silence()
    found = patient.expire_leases()
    assert (found.counts.state, found.counts.done, found.counts.failed, found.expired) == ("failed", 1, 1, 1)
    assert await failures(patient) == [("t-a", TASK_UNREPORTED)]


async def test_while_a_task_runs_the_others_may_wait_for_their_turn(patient):
    patient.record(TaskTransition("plan", planned=2), published("a"), published("b"), start("b"))
    patient.silence()
    assert patient.expire_leases().counts.state == "running"
    patient.record(TaskTransition("done", "b", 1))
    patient.silence(heard=False)
    assert patient.expire_leases().counts.state == "running", "its turn has just come"
    patient.silence()
    assert patient.expire_leases().counts.state == "failed"


async def test_a_task_with_a_countdown_may_be_silent_until_then(patient):
    patient.record(TaskTransition("plan", planned=1), published("a", delay=7_200_000))
    patient.silence()
    assert patient.expire_leases().counts.state == "queued"


async def test_a_retry_may_be_silent_until_its_time(patient):
    patient.record(TaskTransition("plan", planned=1), published("a"), start("a"))
    patient.record(TaskTransition("released", "a", 1, lease=7_200_000))
    patient.silence()
    assert patient.expire_leases().counts.state == "running"


async def test_a_retry_that_no_worker_takes_up_has_failed(patient):
    patient.record(TaskTransition("plan", planned=1), published("a"), start("a"), TaskTransition("released", "a", 1))
    patient.silence()
    assert patient.expire_leases().counts.state == "failed"
    assert await failures(patient) == [("t-a", TASK_UNREPORTED)]


async def test_a_canvas_that_publishes_nothing_has_failed(patient):
    """As with celery-singleton, whose apply_async returns the result of another message."""
    starter = TaskTransition("published", "starter", 1, internal=True)
    patient.record(TaskTransition("plan", planned=1), starter)
    counts = patient.record(TaskTransition("done", "starter", 1, internal=True))
    assert (counts.state, counts.done, counts.total) == ("queued", 0, 1)
    patient.age("")
    assert patient.expire_leases().counts.state == "failed"
    assert await failures(patient) == [("", PARTS_MISSING)]


async def test_a_canvas_that_publishes_too_little_has_failed(patient):
    patient.record(TaskTransition("plan", planned=2), published("a"), start("a"))
    counts = patient.record(TaskTransition("done", "a", 1))
    assert (counts.state, counts.done, counts.total) == ("running", 1, 2)
    patient.age("")
    assert patient.expire_leases().counts.state == "failed"


async def test_a_start_that_was_interrupted_has_failed(patient):
    patient.record(TaskTransition("plan", planned=1))
    patient.silence()
    assert patient.expire_leases().counts.state == "failed"


async def test_without_a_plan_an_operation_does_not_succeed(patient):
    """Its tasks are faster than the report of its start, or its state was lost."""
    counts = patient.record(start("a"), TaskTransition("done", "a", 1))
    assert counts.state == "running"
    assert patient.record(TaskTransition("plan", planned=1)).state == "succeeded"


async def test_without_a_plan_an_operation_ends_as_failed(patient):
    patient.record(start("a"), joined("a"))
    patient.silence()
    assert patient.expire_leases().counts.state == "failed"
    assert await failures(patient) == [("", PARTS_MISSING)]


async def test_an_end_whose_publication_was_never_reported_counts(patient):
    patient.record(TaskTransition("plan", planned=1), TaskTransition("done", "a", 1))
    patient.silence()
    assert patient.expire_leases().counts.state == "succeeded"


async def test_the_state_outlives_the_channel_until_the_end(patient):
    patient.record(TaskTransition("plan", planned=1), published("a", delay=3_600_000), start("b", planned=0))
    names = patient.keys.operation("user:42", "9")
    lives = patient.end.execute(*(("TTL", name) for name in names))
    assert min(lives) > 7_200
    patient.client.renew({REF: ["b"]}, 60)
    assert min(patient.end.execute(*(("TTL", name) for name in names))) >= 3_600
    assert patient.end.execute(("TTL", patient.keys.channel("user:42")[0]))[0] < 60


async def test_the_index_has_an_operation_from_its_start(patient):
    gateway = RedisOperations(patient.settings, patient.reader)
    patient.record(TaskTransition("plan", planned=1, lease=3_600_000), published("a"))
    patient.silence()
    patient.end.execute(("ZADD", patient.keys.leases, "XX", 1, "user:42 9"))
    assert await gateway.due(10) == ["user:42 9"]
    assert (await gateway.expire_leases("user:42 9")).counts.state == "failed"
    assert await gateway.due(10) == []


async def test_a_silence_that_is_too_short_does_not_end_the_wait_for_the_rest_of_the_plan(patient):
    patient.record(TaskTransition("plan", planned=2), published("a"), start("a"), TaskTransition("done", "a", 1))
    patient.silence(heard=False)
    assert patient.expire_leases().counts.state == "running"
    assert patient.record(start("b"), TaskTransition("done", "b", 1)).state == "succeeded"


async def test_a_chord_is_awaited_as_long_as_its_task_says(patient):
    patient.record(TaskTransition("plan", planned=2), published("a"), start("a"))
    patient.record(TaskTransition("joined", "a", 1, lease=1_800_000))
    seconds, _ = patient.end.execute(("TIME",))[0]
    left = patient.expire_leases().next_check - 1000 * int(seconds)
    assert 1_700_000 < left <= 1_801_000


async def test_a_task_that_is_lost_twice_is_lost_again(patient):
    patient.record(TaskTransition("plan", planned=1), published("a"))
    for _ in range(2):
        assert patient.record(start("a", acks_late=True)).state == "running"
        patient.age("a")
        assert patient.expire_leases().counts.state == "lost"
