"""A real worker, started once; the channel of each operation listened to from before its start."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from eventbus import Bus, BusSettings, configure, default_bus  # noqa: E402
from eventbus.operation import OperationRef, current_operation  # noqa: E402
from tests.conftest import wait_until  # noqa: E402
from tests.worker import app as celery_application  # noqa: E402


@contextlib.contextmanager
def running(command, log, *, patience=10, **options):
    """A process of its own session. It ends when the block does: asked to, then killed with all of its children."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True, cwd=ROOT, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            if patience:
                process.wait(patience)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(5)


@pytest.fixture(scope="session")
def application(redis_url):
    """The application, as a web process has it: its bus and its broker are the tests' Redis."""
    server = redis_url.removesuffix("/0")
    celery_application.app.conf.update(broker_url=f"{server}/1", result_backend=f"{server}/2")
    configure(BusSettings(redis_url=redis_url))
    return celery_application


@pytest.fixture(scope="session")
def start_worker(redis_url, tmp_path_factory):
    """Start a worker with arguments of its own; returns a context manager."""

    @contextlib.contextmanager
    def start(*arguments, queue="celery", patience=10, **environment):
        log = tmp_path_factory.mktemp("worker") / "log"
        environment = {
            **os.environ,
            "TESTS_REDIS": redis_url.removesuffix("/0"),
            "TESTS_QUEUE": queue,
            "EVENTBUS_REDIS_URL": redis_url,
            "EVENTBUS_WORKER_PROGRESS_INTERVAL": "0.05",
            **environment,
        }
        command = [sys.executable, "-m", "celery", "-A", "tests.worker.app", "worker", "-l", "INFO", "-Q", queue]
        command += ["--without-gossip", "--without-mingle", "--without-heartbeat", *arguments]
        with running(command, log, patience=patience, env=environment) as process:
            wait_until(lambda: b" ready." in log.read_bytes(), f"the worker to be ready, see {log}", 60)
            process.log = log
            yield process

    return start


@pytest.fixture(scope="session")
def worker(start_worker):
    with start_worker("-c", "2", "--pool", "prefork") as process:
        yield process
    # Nothing in there is allowed to have gone wrong silently: Celery only logs what a signal's receiver raises.
    text = process.log.read_text()
    assert "Signal handler" not in text, text
    assert "could not be told" not in text, text


@pytest.fixture
def states():
    """An operation without a server; returns how its progress stands, by stage."""
    former = default_bus()
    bus = configure(bus=Bus(BusSettings(redis_url="memory://")))
    current_operation.set(OperationRef("ann", "by-hand"))

    def read():
        bus.flush(5)
        snapshot = [json.loads(record.event) for record in bus.broker.read("user:ann", None).snapshot]
        return {event["data"]["stage"]: event["data"] for event in snapshot}

    yield read
    current_operation.set(None)
    configure(bus=former)
