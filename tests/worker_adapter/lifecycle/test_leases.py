"""Workers that are lost, slow or stopped: the reports about the tasks that they ran."""

import asyncio
import functools
import os
import signal
import subprocess
import sys
import time

import celery
import pytest
import redis
from celery import chord

from eventbus import BusSettings
from eventbus.backends.redis.operation_client import Operations
from eventbus.backends.redis.operation_store import RedisOperations
from eventbus.backends.redis.publisher import RedisPublisher
from eventbus.backends.redis.reader import RedisReader
from eventbus.backends.redis.scripts.keys import Keys
from tests.conftest import wait_until
from tests.worker_adapter import lives as a
from tests.worker_adapter.conftest import ROOT, check_log, publishing_to
from tests.worker_adapter.listening import END, SubscriptionListener, logged
from worker_adapter import start_operation

SHORT = {"EVENTBUS_WORKER_LEASE": "3", "EVENTBUS_WORKER_CANCEL_POLL": "0.1"}


@pytest.fixture(autouse=True)
def _here(application, redis_url):
    a.app.conf.result_backend = f"{redis_url.removesuffix('/0')}/2"
    with publishing_to(a.app, f"{redis_url.removesuffix('/0')}/1"):
        yield


@pytest.fixture
def settings(redis_url):
    return BusSettings(redis_url=redis_url)


@pytest.fixture
def operations(settings):
    with Operations(settings) as operations:
        yield operations


class World:
    """An operation that runs in a separate worker."""

    def __init__(self, settings, operations, user, flow):
        self.settings, self.operations, self.user = settings, operations, user
        self.listening = SubscriptionListener(settings.redis_url, user)
        self.id = start_operation(flow.set(queue=user), user=user).id
        self.leases = Keys(settings.key_prefix).operation(f"user:{user}", self.id)[2]

    def begun(self, path):
        wait_until(path.exists, "the task to begin")
        self.listening.until(lambda heard: any(e.type == "task.started" for e in heard))
        wait_until(lambda: self.info().tasks, "its lease, of which Redis may hear a moment later")

    def info(self):
        return self.operations.get(self.user, self.id)

    def lease(self):
        """End of the lease (ms); None while nothing runs."""
        redis = RedisPublisher(self.settings)
        try:
            (found,) = redis.execute(("ZRANGE", self.leases, 0, 0, "WITHSCORES"))
        finally:
            redis.close()
        return int(found[1]) if found else None

    def sweep(self):
        """Check this operation's leases, as a gateway does."""

        async def check():
            reader = RedisReader(self.settings)
            book = RedisOperations(self.settings, reader)
            try:
                return await book.expire_leases(f"user:{self.user} {self.id}")
            finally:
                await reader.aclose()

        return asyncio.run(check())

    def forget_lease(self):
        """Let the lease expire."""
        redis = RedisPublisher(self.settings)
        redis.execute(*(("ZADD", self.leases, "XX", 1, key) for key in self._keys(redis)))
        redis.close()

    def _keys(self, redis):
        (found,) = redis.execute(("ZRANGE", self.leases, 0, -1))
        return found

    def states(self):
        return [
            e.type.removeprefix("operation.")
            for e in self.listening.events
            if e.type.startswith("operation.") and e.type != "operation.progress"
        ]

    def until(self, *types):
        self.listening.until(lambda heard: any(e.type in types for e in heard))

    def end(self):
        self.until(*END)
        self.listening.close()
        return self.states()


@pytest.fixture
def begin(settings, operations):
    return lambda user, flow: World(settings, operations, user, flow)


@pytest.fixture
def start(start_worker):
    def begun(queue, pool="prefork", patience=20, **more):
        places = [] if pool == "solo" else ["-c", "2"]
        return start_worker(
            "--pool", pool, *places, queue=queue, app="tests.worker_adapter.lives", patience=patience, **SHORT, **more
        )

    return begun


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


def test_a_worker_goes_on_while_redis_is_down(own_redis, start_worker, redis_url, tmp_path):
    """The bus' own Redis, apart from the broker's."""
    ran = tmp_path / "ran"
    environment = {"EVENTBUS_REDIS_URL": own_redis.url, **SHORT}
    with start_worker(
        "--pool", "prefork", "-c", "1", queue="away", app="tests.worker_adapter.lives", **environment
    ) as worker:
        wait = tmp_path / "wait"
        a.wait.si(str(wait)).set(queue="away").delay()
        wait_until(wait.exists, "the task to begin")
        own_redis.kill()
        wait.unlink()
        a.mark.si(str(ran)).set(queue="away").delay().get(timeout=15)
        assert ran.exists()
        wait_until(lambda: _inspected(worker.name).get("trouble"), "the worker to notice")
        own_redis.start()
        wait_until(lambda: _inspected(worker.name).get("trouble") == "", "the worker to go on")
    check_log(worker)


def test_a_worker_answers_inspect(start, begin, operations, tmp_path):
    path = tmp_path / "path"
    with start("asked") as worker:
        world = begin("asked", a.wait.si(str(path)))
        world.begun(path)
        ask = functools.partial(_inspected, worker.name)
        wait_until(lambda: ask().get("leases") == 1, "the worker to renew")
        assert {"outbox", "children", "leases", "cancelled", "trouble"} <= ask().keys()
        assert ask()["outbox"]["spool_bytes"] >= 0
        wait_until(lambda: ask().get("children"), "its process to say something")
        (child,) = ask()["children"].values()
        assert child["dropped"] == {}
        (stats,) = a.app.control.inspect([worker.name], timeout=10, limit=1).stats().values()
        assert stats["eventbus"]["leases"] == 1
        world.operations.cancel(world.user, world.id)
        wait_until(lambda: ask().get("cancelled", 0) >= 1, "the worker to hear of it")
        path.unlink()
        world.end()
    check_log(worker)


def _inspected(worker):
    """The answer of a worker to ``inspect eventbus``; empty if it takes too long."""
    answers = a.app.control.inspect([worker], timeout=10, limit=1)._request("eventbus")
    return next(iter((answers or {}).values()), {})


def test_the_command_line_knows_the_command(redis_url):
    environment = {**os.environ, "TESTS_REDIS": redis_url.removesuffix("/0")}
    command = [sys.executable, "-m", "celery", "-A", "tests.worker_adapter.lives", "inspect", "--list"]
    listed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=30)
    assert "eventbus" in listed.stdout + listed.stderr


def test_an_eager_task_has_no_lease(begin, settings, application):
    world = None
    a.app.conf.task_always_eager = True
    try:
        world = begin("eager-lease", a.ok.si())
        assert world.end()[-1] == "succeeded"
    finally:
        a.app.conf.task_always_eager = False
    assert world.lease() is None
