"""A user cancels an operation: queued tasks never run, running tasks stop, and the page is notified."""

import itertools
import os
from pathlib import Path

import celery
import pytest
from celery import chain, group

from eventbus import BusSettings
from eventbus.backends.redis.operation_client import Operations
from tests.conftest import wait_until
from tests.worker_adapter import lives as a
from tests.worker_adapter.conftest import check_log, publishing_to
from tests.worker_adapter.listening import END, SubscriptionListener
from worker_adapter import start_operation

QUICK = {
    "EVENTBUS_WORKER_CANCEL_POLL": "0.1",
    "EVENTBUS_WORKER_KILL_GRACE": "0.5",
}
serial = itertools.count()


@pytest.fixture(scope="module", autouse=True)
def _results(application, redis_url):
    a.app.conf.result_backend = f"{redis_url.removesuffix('/0')}/2"


@pytest.fixture(scope="module")
def workers(start_worker, broker_url):
    """A worker of a pool and broker, with four places, started when it is first asked for."""
    open_ = []

    def of(pool, broker="redis", grace="0.5"):
        if not open_ or open_[0][0] != (pool, broker, grace):
            close()
            if pool is None:
                return None
            publishing = publishing_to(a.app, broker_url(broker))
            queue = f"cancel-{pool}-{broker}-{grace}"
            environment = {**QUICK, "EVENTBUS_WORKER_CANCEL_GRACE": grace}
            places = [] if pool == "solo" else ["-c", "4"]
            worker = start_worker(
                "--pool",
                pool,
                *places,
                queue=queue,
                app="tests.worker_adapter.lives",
                broker=broker,
                patience=0,
                **environment,
            )
            publishing.__enter__()
            open_.append(((pool, broker, grace), queue, publishing, worker, worker.__enter__()))
        return open_[0][1]

    def close():
        while open_:
            _, _, publishing, worker, process = open_.pop()
            worker.__exit__(None, None, None)
            publishing.__exit__(None, None, None)
            check_log(process)

    yield of
    close()


@pytest.fixture
def operations(redis_url):
    with Operations(BusSettings(redis_url=redis_url)) as operations:
        yield operations


class Cancellable:
    """An operation that will be cancelled."""

    def __init__(self, flow, queue, redis_url, operations):
        self.user = f"cancel-{next(serial)}"
        self.operations = operations
        self.listening = SubscriptionListener(redis_url, self.user)
        flow.set(queue=queue)
        self.operation = start_operation(flow, user=self.user)
        self.result = self.operation.result

    def begun(self, path):
        """Wait until a task runs: it has made its file, and the page was notified."""
        wait_until(path.exists, "the task to begin")
        self.listening.until(lambda heard: any(e.type == "operation.started" for e in heard))

    def cancel(self):
        self.operations.cancel(self.user, self.operation.id)

    def until_end(self, seconds=15):
        events = self.listening.until(lambda heard: any(e.type in END for e in heard), seconds)
        self.listening.close()
        return events

    def until_cancelled(self):
        """Wait for the end; return why each of the tasks was revoked."""
        events = self.until_end()
        assert events[-1].type == "operation.cancelled"
        assert events[-1].data["failed"] == 0
        assert not [e for e in events if e.type == "task.failed"]
        return [e.data["reason"] for e in events if e.type == "task.revoked"]


@pytest.fixture
def begin(redis_url, operations):
    return lambda flow, queue: Cancellable(flow, queue, redis_url, operations)


@pytest.mark.parametrize("task", [a.steps, a.checks], ids=["track", "check_cancelled"])
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent"])
def test_a_running_task_stops_by_itself(task, pool, workers, begin, tmp_path):
    path = tmp_path / "path"
    operation = begin(task.si(str(path)), workers(pool, grace="3600"))
    operation.begun(path)
    operation.cancel()
    assert operation.until_cancelled() == ["cancelled"]
    assert task is a.checks or path.read_text() == "cleaned up"
    wait_until(lambda: operation.result.state == "REVOKED", "the result's state")


@pytest.mark.parametrize(
    ("pool", "broker", "task"),
    [
        # Celery before 5.5 cannot terminate a greenlet.
        *([("gevent", "redis", a.wait)] if celery.VERSION >= (5, 5) else []),
        ("prefork", "redis", a.wait),
        ("prefork", "redis", a.stubborn),
        ("prefork", "rabbitmq", a.wait),
        ("prefork", "rabbitmq", a.wait_late),
    ],
)
def test_a_task_that_does_not_check_is_terminated(pool, broker, task, workers, begin, tmp_path):
    path = tmp_path / "path"
    operation = begin(task.si(str(path)), workers(pool, broker))
    operation.begun(path)
    wait_until(path.read_text, "its process")
    process = int(path.read_text())
    operation.cancel()
    assert operation.until_cancelled() == ["cancelled"]
    if pool == "prefork":
        wait_until(lambda: not _is_alive(process), "its process to end")
    wait_until(lambda: operation.result.state == "REVOKED", "the result's state")


@pytest.mark.parametrize("broker", ["rabbitmq", "redis"])
def test_a_queued_task_never_runs(broker, workers, begin, tmp_path):
    queue = workers("prefork", broker)
    first, ran = tmp_path / "first", tmp_path / "ran"
    operation = begin(chain(a.wait.si(str(first)), a.mark.si(str(ran))), queue)
    later = begin(a.mark.si(str(ran)).set(countdown=1), queue)
    operation.begun(first)
    operation.cancel()
    later.cancel()
    assert later.until_end()[-1].type == "operation.cancelled"
    assert operation.until_cancelled() == ["cancelled"]
    wait_until(lambda: later.result.state == "REVOKED", "the worker to discard it")
    assert not ran.exists()


@pytest.fixture
def blind(start_worker, workers, broker_url):
    """A worker that reads the cancelled operations when it starts, and never again."""
    workers(None)
    environment = {"EVENTBUS_WORKER_CANCEL_POLL": "3600"}
    with publishing_to(a.app, broker_url("redis")):
        yield start_worker(
            "--pool", "prefork", "-c", "1", queue="blind", app="tests.worker_adapter.lives", **environment
        )


def test_a_task_published_after_the_cancel_never_runs(blind, begin, tmp_path):
    path, ran = tmp_path / "path", tmp_path / "ran"
    with blind as worker:
        operation = begin(a.publish_when.si(str(path), str(ran)), "blind")
        operation.begun(path)
        operation.cancel()
        path.unlink()
        events = operation.until_end()
        assert events[-1].type == "operation.cancelled"
        # Behind it in the same queue, so that it would have run by now.
        begin(a.ok.si(), "blind").until_end()
    assert not ran.exists()
    check_log(worker)


def test_a_worker_that_starts_later_knows(blind, begin, tmp_path):
    ran = tmp_path / "ran"
    operation = begin(group(a.mark.si(str(ran)), a.mark.si(str(ran))), "blind")
    operation.cancel()
    operation.until_end()
    with blind as worker:
        begin(a.ok.si(), "blind").until_end()
    assert not ran.exists()
    check_log(worker)


def test_stamps_of_the_application_still_work(workers, begin, tmp_path):
    queue = workers("prefork")
    path = tmp_path / "path"
    signature = a.wait.si(str(path))
    signature.stamp(tenant="acme")
    operation = begin(signature, queue)
    operation.begun(path)
    a.app.control.revoke_by_stamped_headers({"tenant": "acme"}, terminate=True)
    events = operation.until_end()
    assert [e.data["reason"] for e in events if e.type == "task.revoked"] == ["terminated"]
    assert events[-1].type == "operation.failed"


def test_an_application_may_revoke_by_the_stamp_of_an_operation(workers, begin, tmp_path):
    queue = workers("prefork")
    path = tmp_path / "path"
    operation = begin(a.wait.si(str(path)), queue)
    another = tmp_path / "another"
    other = begin(a.steps.si(str(another)), queue)
    other.begun(another)
    operation.begun(path)
    stamp = {"eventbus_operation": f"{operation.user}:{operation.operation.id}"}
    a.app.control.revoke_by_stamped_headers(stamp, terminate=True)
    assert operation.until_end()[-1].type == "operation.failed"
    other.cancel()
    assert other.until_cancelled() == ["cancelled"]


def test_outside_of_every_operation_nothing_is_raised():
    from worker_adapter import check_cancelled  # noqa: PLC0415 - as a library would

    check_cancelled()


def _is_alive(process):
    try:
        os.kill(process, 0)
        return not _LINUX or Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):  # the latter if it ends between the two
        return False


_LINUX = Path("/proc/self/stat").exists()
