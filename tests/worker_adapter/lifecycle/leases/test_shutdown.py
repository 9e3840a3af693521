"""Shutdowns of workers, and processes that are replaced: the reports about their tasks."""

import signal

import celery
import pytest
import redis

from tests.conftest import wait_until
from tests.worker_adapter import lives as a
from tests.worker_adapter.conftest import check_log
from tests.worker_adapter.listening import END, logged


def test_a_warm_shutdown_waits_for_the_task_and_renews(start, begin, tmp_path):
    path = tmp_path / "path"
    with start("warm") as worker:
        world = begin("warm", a.wait.si(str(path)))
        world.begun(path)
        worker.terminate()
        first = world.lease()
        wait_until(lambda: world.lease() > first, "the lease to be renewed while the worker waits")
        path.unlink()
        assert worker.wait(20) == 0
    assert world.end() == ["queued", "started", "succeeded"]
    assert world.lease() is None
    check_log(worker)


# Celery before 5.5 acknowledges the message of a task that it kills in a cold shutdown, so no worker runs it again.
@pytest.mark.parametrize("task", ["wait", "wait_late"] if celery.VERSION >= (5, 5) else ["wait"])
def test_a_cold_shutdown_reports_the_task(task, start, begin, tmp_path):
    path = tmp_path / "path"
    queue = f"cold-{task}"
    with start(queue, patience=20) as worker:
        world = begin(queue, getattr(a, task).si(str(path)))
        world.begun(path)
        worker.send_signal(signal.SIGQUIT)
        worker.wait(20)
    if task == "wait":
        assert world.end() == ["queued", "started", "failed"]
        (failed,) = [e.data for e in world.listening.events if e.type == "task.failed"]
        assert failed["error"].startswith("WorkerShutdown")
        return
    assert world.info().state == "running"
    assert world.info().tasks == ()
    assert world.lease() is None
    path.unlink()
    with start(queue):
        wait_until(path.exists, "the task to begin again")
        path.unlink()
        assert world.end() == ["queued", "started", "succeeded"]


@pytest.mark.skipif(celery.VERSION < (5, 5), reason="Celery before 5.5 has no soft shutdown")
def test_a_task_that_ends_in_a_soft_shutdown_has_not_been_stopped(start, begin, redis_url, tmp_path):
    """The worker sleeps during a soft shutdown and does not notice the end of the task."""
    path = tmp_path / "path"
    with start("soft", patience=20, TESTS_SOFT_SHUTDOWN="2") as worker:
        world = begin("soft", a.wait.si(str(path)))
        world.begun(path)
        worker.send_signal(signal.SIGQUIT)
        wait_until(lambda: b"Initiating Soft Shutdown" in worker.log.read_bytes(), "the time to begin")
        path.unlink()
        assert world.end() == ["queued", "started", "succeeded"]
        worker.wait(20)
    assert not [event for event in logged(redis_url, "soft") if event.type == "task.failed"]
    check_log(worker)


@pytest.mark.parametrize("options", [["--max-tasks-per-child", "1"], ["--autoscale", "3,1"]], ids=["max", "autoscale"])
def test_processes_that_are_replaced_lose_nothing(options, start_worker, begin):
    queue = f"come-and-go-{options[0].strip('-')}"
    slow = {"EVENTBUS_LINGER": "3600", "EVENTBUS_WORKER_FLUSH_BUDGET": "0"} if "max" in options[0] else {}
    # Stopped on the heels of short tasks any worker takes half a minute now and then: docs/how-to/configure-workers.md.
    worker = start_worker(
        "--pool", "prefork", "-c", "1", *options, queue=queue, app="tests.worker_adapter.lives", patience=45, **slow
    )
    with worker as process:
        worlds = [begin(queue, a.ok.si()) for _ in range(6)]
        assert all(world.end()[-1] == "succeeded" for world in worlds)
    check_log(process)


def test_a_task_that_has_ended_and_is_redelivered_is_reported_once(start, begin, redis_url):
    """The same message runs twice, as after a warm shutdown that does not acknowledge it."""
    queue = "comes-again"
    world = begin(queue, a.ok.si())
    with redis.Redis.from_url(f"{redis_url.removesuffix('/0')}/1") as broker:
        (message,) = broker.lrange(queue, 0, -1)
        broker.lpush(queue, message)
    with start(queue, pool="solo") as worker:
        wait_until(lambda: worker.log.read_text().count("] succeeded in") == 2, "both to run")
        last = begin(queue, a.ok.si())
        last.end()
        world.listening.until(lambda heard: any(last.id in e.topic and e.type in END for e in heard))
    of_it = [e.type for e in world.listening.events if world.id in e.topic]
    assert sorted(e for e in of_it if e.startswith("task.")) == ["task.started", "task.succeeded"]
    assert world.states()[:3] == ["queued", "started", "succeeded"]
    assert of_it.count("operation.succeeded") == of_it.count("operation.started") == 1
    assert (world.info().done, world.info().total, world.info().state) == (1, 1, "succeeded")
    world.listening.close()
    check_log(worker)
