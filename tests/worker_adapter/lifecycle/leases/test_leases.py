"""Leases of workers that are lost, slow or killed."""

import os
import signal
import time

import celery
import pytest
from celery import chord

from tests.conftest import wait_until
from tests.worker_adapter import lives as a
from tests.worker_adapter.conftest import check_log, publishing_to
from tests.worker_adapter.listening import logged


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent"])
def test_a_lease_is_renewed_while_a_task_runs(pool, start, begin, tmp_path):
    path = tmp_path / "path"
    with start(f"renewed-{pool}", pool) as worker:
        world = begin(f"renewed-{pool}", a.wait.si(str(path)))
        world.begun(path)
        (running,) = world.info().tasks
        assert (running.name, running.retries, running.lost) == ("tests.worker_adapter.lives.wait", 0, False)
        first = world.lease()
        wait_until(lambda: world.lease() > first, "the lease to be renewed")
        path.unlink()
        assert world.end() == ["queued", "started", "succeeded"]
    assert world.lease() is None
    check_log(worker)


def test_a_worker_that_vanishes_and_the_message_is_not_redelivered(start, begin, tmp_path):
    path = tmp_path / "path"
    with start("vanishes", patience=0) as worker:
        world = begin("vanishes", a.wait.si(str(path)))
        world.begun(path)
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    world.forget_lease()
    world.sweep()
    assert world.end() == ["queued", "started", "failed"]
    (failed,) = [e.data for e in world.listening.events if e.type == "task.failed"]
    assert failed["error"].startswith("WorkerLost")
    assert failed["name"] == "tests.worker_adapter.lives.wait"


def test_a_worker_that_vanishes_and_the_message_is_redelivered(start, begin, broker_url, tmp_path):
    """Over RabbitMQ, which notices immediately; Redis would need its visibility timeout."""
    path = tmp_path / "path"
    with publishing_to(a.app, broker_url("rabbitmq")):
        with start("again", broker="rabbitmq", patience=0) as worker:
            world = begin("again", a.wait_late.si(str(path)))
            world.begun(path)
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
        world.forget_lease()
        assert world.sweep().counts.state == "lost"
        assert world.info().tasks[0].lost
        path.unlink()
        with start("again", broker="rabbitmq") as worker:
            world.until("operation.resumed")
            wait_until(path.exists, "the task to begin again")
            path.unlink()
            assert world.end() == ["queued", "started", "lost", "resumed", "succeeded"]
    check_log(worker)


def test_a_worker_that_was_reported_lost_renews_again(start, begin, tmp_path):
    path = tmp_path / "path"
    with start("slow") as worker:
        world = begin("slow", a.wait_late.si(str(path)))
        world.begun(path)
        os.kill(worker.pid, signal.SIGSTOP)
        try:
            world.forget_lease()
            assert world.sweep().counts.state == "lost"
        finally:
            os.kill(worker.pid, signal.SIGCONT)
        world.until("operation.resumed")
        path.unlink()
        assert world.end() == ["queued", "started", "lost", "resumed", "succeeded"]
    check_log(worker)


def test_a_retry_that_waits_is_not_running(start, begin, tmp_path):
    path = tmp_path / "path"
    with start("waits"):
        world = begin("waits", a.auto_later.si(str(path)))
        world.until("task.retry")
        wait_until(lambda: world.lease() is None, "the lease to be given back")
        assert world.info().state == "running"
        assert world.info().tasks == ()
        assert world.end() == ["queued", "started", "succeeded"]


def test_a_message_that_expires_in_a_queue_of_rabbitmq_is_reported(start, begin, broker_url):
    """RabbitMQ would drop it without a trace."""
    with publishing_to(a.app, broker_url("rabbitmq")):
        world = begin("expires", a.ok.si().set(expires=0.2))
        over = time.monotonic() + 0.3
        wait_until(lambda: time.monotonic() > over, "its time to be over")
        with start("expires", broker="rabbitmq", patience=0):
            assert world.end()[-1] == "failed"
    assert [e.data["reason"] for e in world.listening.events if e.type == "task.revoked"] == ["expired"]


def test_a_task_that_a_killed_task_had_published_belongs_to_the_operation(start, begin, tmp_path):
    """Otherwise the operation would end with the task that was killed, and go on after its end."""
    path = tmp_path / "path"
    with start("killed-publisher") as worker:
        world = begin("killed-publisher", a.publish_and_die.si(str(path)))
        assert world.end() == ["queued", "started", "failed"]
        info = world.info()
        assert (info.done, info.failed, info.total) == (1, 1, 2)
        assert path.exists()
    check_log(worker)


@pytest.mark.skipif(celery.VERSION < (5, 7), reason="Celery before 5.7 stores a failure for a process that was lost")
def test_a_task_of_a_chord_that_was_killed_after_its_last_event_has_not_failed(start, begin, redis_url, tmp_path):
    path = tmp_path / "path"
    with start("killed-after-report") as worker:
        queue = {"queue": "killed-after-report"}
        header = [a.kill_after_report.si().set(**queue)]
        world = begin("killed-after-report", chord(header, a.after_all.s(path=str(path)).set(**queue)))
        noticed = b"succeeded before the worker was lost"
        wait_until(
            lambda: noticed in worker.log.read_bytes() and path.exists(), "Celery to notice, and the body to run"
        )
        path.unlink()
        assert world.end() == ["queued", "started", "succeeded"]
        # Killed a little earlier, when its result was stored: its chord may not have heard of it, so it has.
        killed = chord([a.kill_when_done.si().set(**queue)], a.ok.s().set(**queue))
        earlier = begin("killed-after-report", killed)
        assert earlier.end()[-1] == "failed"
    # All of its reports have been sent when the worker has stopped.
    failed = [event.topic for event in logged(redis_url, "killed-after-report") if event.type == "task.failed"]
    assert failed == [f"user:killed-after-report:operation:{earlier.id}"]
    check_log(worker)


def test_a_task_that_waits_for_its_time_is_queued(start, begin):
    with start("its-time"):
        world = begin("its-time", a.ok.si().set(countdown=1.5))
        # Behind it in the queue, so the worker has it by then.
        other = begin("its-time", a.ok.si())
        other.end()
        assert world.info().state == "queued"
        assert world.lease() is None
        assert world.end()[-1] == "succeeded"


def test_an_eager_task_has_no_lease(begin, settings, application):
    world = None
    a.app.conf.task_always_eager = True
    try:
        world = begin("eager-lease", a.ok.si())
        assert world.end()[-1] == "succeeded"
    finally:
        a.app.conf.task_always_eager = False
    assert world.lease() is None
