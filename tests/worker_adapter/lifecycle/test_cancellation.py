"""Somebody presses Cancel: what waits is never run, what runs stops by itself or is stopped, and the page is told."""

import itertools
import os
from pathlib import Path

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
def desk(redis_url):
    with Operations(BusSettings(redis_url=redis_url)) as desk:
        yield desk


class Pressed:
    """An operation that somebody will cancel."""

    def __init__(self, flow, queue, redis_url, desk):
        self.user = f"cancel-{next(serial)}"
        self.desk = desk
        self.listening = SubscriptionListener(redis_url, self.user)
        flow.set(queue=queue)
        self.operation = start_operation(flow, user=self.user)
        self.result = self.operation.result

    def begun(self, path):
        """Wait until a task runs: it has made its file, and the page was told."""
        wait_until(path.exists, "the task to begin")
        self.listening.until(lambda heard: any(e.type == "operation.started" for e in heard))

    def press(self):
        self.desk.cancel(self.user, self.operation.id)

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
def begin(redis_url, desk):
    return lambda flow, queue: Pressed(flow, queue, redis_url, desk)


@pytest.mark.parametrize("task", [a.steps, a.checks], ids=["track", "check_cancelled"])
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent"])
def test_what_runs_stops_by_itself(task, pool, workers, begin, tmp_path):
    path = tmp_path / "path"
    pressed = begin(task.si(str(path)), workers(pool, grace="3600"))
    pressed.begun(path)
    pressed.press()
    assert pressed.until_cancelled() == ["cancelled"]
    assert task is a.checks or path.read_text() == "cleaned up"
    wait_until(lambda: pressed.result.state == "REVOKED", "the result's state")


@pytest.mark.parametrize(
    ("pool", "broker", "task"),
    [
        ("gevent", "redis", a.wait),
        ("prefork", "redis", a.wait),
        ("prefork", "redis", a.deaf),
        ("prefork", "rabbitmq", a.wait),
        ("prefork", "rabbitmq", a.wait_late),
    ],
)
def test_what_hears_nothing_is_stopped(pool, broker, task, workers, begin, tmp_path):
    path = tmp_path / "path"
    pressed = begin(task.si(str(path)), workers(pool, broker))
    pressed.begun(path)
    wait_until(path.read_text, "its process")
    process = int(path.read_text())
    pressed.press()
    assert pressed.until_cancelled() == ["cancelled"]
    if pool == "prefork":
        wait_until(lambda: not _is_alive(process), "its process to end")
    wait_until(lambda: pressed.result.state == "REVOKED", "the result's state")


@pytest.mark.parametrize("broker", ["rabbitmq", "redis"])
def test_what_waits_is_never_run(broker, workers, begin, tmp_path):
    queue = workers("prefork", broker)
    first, told = tmp_path / "first", tmp_path / "told"
    pressed = begin(chain(a.wait.si(str(first)), a.mark.si(str(told))), queue)
    later = begin(a.mark.si(str(told)).set(countdown=1), queue)
    pressed.begun(first)
    pressed.press()
    later.press()
    assert later.until_end()[-1].type == "operation.cancelled"
    assert pressed.until_cancelled() == ["cancelled"]
    wait_until(lambda: later.result.state == "REVOKED", "the worker to discard it")
    assert not told.exists()


@pytest.fixture
def blind(start_worker, workers, broker_url):
    """A worker that reads what is cancelled when it starts, and never again."""
    workers(None)
    environment = {"EVENTBUS_WORKER_CANCEL_POLL": "3600"}
    with publishing_to(a.app, broker_url("redis")):
        yield start_worker(
            "--pool", "prefork", "-c", "1", queue="blind", app="tests.worker_adapter.lives", **environment
        )


def test_what_is_published_after_the_press_is_never_run(blind, begin, tmp_path):
    path, told = tmp_path / "path", tmp_path / "told"
    with blind as worker:
        pressed = begin(a.publish_when.si(str(path), str(told)), "blind")
        pressed.begun(path)
        pressed.press()
        path.unlink()
        events = pressed.until_end()
        assert events[-1].type == "operation.cancelled"
        # Behind it in the same queue, so that it would have run by now.
        begin(a.ok.si(), "blind").until_end()
    assert not told.exists()
    check_log(worker)


def test_a_worker_that_starts_later_knows(blind, begin, tmp_path):
    told = tmp_path / "told"
    pressed = begin(group(a.mark.si(str(told)), a.mark.si(str(told))), "blind")
    pressed.press()
    pressed.until_end()
    with blind as worker:
        begin(a.ok.si(), "blind").until_end()
    assert not told.exists()
    check_log(worker)


def test_stamps_of_the_application_still_work(workers, begin, tmp_path):
    queue = workers("prefork")
    path = tmp_path / "path"
    signature = a.wait.si(str(path))
    signature.stamp(tenant="acme")
    pressed = begin(signature, queue)
    pressed.begun(path)
    a.app.control.revoke_by_stamped_headers({"tenant": "acme"}, terminate=True)
    events = pressed.until_end()
    assert [e.data["reason"] for e in events if e.type == "task.revoked"] == ["terminated"]
    assert events[-1].type == "operation.failed"


def test_whoever_revokes_by_our_stamp_may(workers, begin, tmp_path):
    queue = workers("prefork")
    path = tmp_path / "path"
    pressed = begin(a.wait.si(str(path)), queue)
    another = tmp_path / "another"
    other = begin(a.steps.si(str(another)), queue)
    other.begun(another)
    pressed.begun(path)
    stamp = {"eventbus_operation": f"{pressed.user}:{pressed.operation.id}"}
    a.app.control.revoke_by_stamped_headers(stamp, terminate=True)
    assert pressed.until_end()[-1].type == "operation.failed"
    other.press()
    assert other.until_cancelled() == ["cancelled"]


def test_outside_of_any_operation_nothing_is_raised():
    from worker_adapter import check_cancelled  # noqa: PLC0415 - as a library would

    check_cancelled()


def _is_alive(process):
    try:
        os.kill(process, 0)
        return not _LINUX or Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):  # the latter if it ends between the two
        return False


_LINUX = Path("/proc/self/stat").exists()
