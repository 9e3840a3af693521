"""A real worker, started once; the channel of each operation listened to from before its start."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Its add-ons need an environment of their kind: `nox -s addons`.
collect_ignore = [] if os.environ.get("TESTS_ADDONS") else ["test_addons.py"]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from eventbus import Bus, BusSettings, configure, default_bus  # noqa: E402
from eventbus.operations.events import OperationRef, current_operation  # noqa: E402
from tests.conftest import wait_until  # noqa: E402
from tests.worker_adapter import app as celery_application  # noqa: E402
from tests.worker_adapter.rabbit import Rabbit  # noqa: E402


@contextlib.contextmanager
def running(command, log, *, patience=10, **options):
    """A process in a separate session. At the end of the block it is terminated, then killed with its children."""
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
def rabbit(tmp_path_factory):
    """RabbitMQ, for all tests of this process."""
    node = Rabbit(tmp_path_factory.mktemp("rabbit"))
    node.start()
    yield node
    node.stop()


@pytest.fixture(scope="session")
def broker_url(redis_url, request):
    """The address of a broker by its name; RabbitMQ starts when it is asked for."""
    redis_broker = f"{redis_url.removesuffix('/0')}/1"
    return lambda name: redis_broker if name == "redis" else request.getfixturevalue("rabbit").url


@contextlib.contextmanager
def publishing_to(app, url):
    """Let an application of this process publish to another broker."""
    former = app.conf.broker_url
    _change_broker(app, url)
    try:
        yield
    finally:
        _change_broker(app, former)


def _change_broker(app, url):
    app.conf.broker_url = url
    app._pool = app.amqp._producer_pool = None


@pytest.fixture(scope="session")
def start_worker(redis_url, broker_url, tmp_path_factory):
    """Start a worker with these arguments; returns a context manager."""

    @contextlib.contextmanager
    def start(*arguments, queue="celery", patience=10, app="tests.worker_adapter.app", broker="redis", **environment):
        log = tmp_path_factory.mktemp("worker") / "log"
        environment = {
            **os.environ,
            "TESTS_REDIS": redis_url.removesuffix("/0"),
            "TESTS_BROKER": broker_url(broker),
            "TESTS_QUEUE": queue,
            "C_FORCE_ROOT": "1",  # pickle is accepted here, from these tests
            "EVENTBUS_REDIS_URL": redis_url,
            "EVENTBUS_WORKER_PROGRESS_INTERVAL": "0.05",
            **environment,
        }
        command = [sys.executable, "-m", "celery", "-A", app, "worker", "-l", "INFO", "-Q", queue]
        # A separate name: a broker gives the queue for remote control to one worker of a name.
        name = f"{log.parent.name}@{socket.gethostname()}"
        command += ["-n", name, "--without-gossip", "--without-mingle", "--without-heartbeat"]
        command += arguments
        with running(command, log, patience=patience, env=environment) as process:
            wait_until(
                lambda: b" ready." in log.read_bytes() or process.poll() is not None, f"the worker, see {log}", 60
            )
            assert process.poll() is None, log.read_text()
            process.log, process.name = log, name
            yield process

    return start


def check_log(process):
    """Check that no receiver of a signal has failed. Celery only logs their exceptions."""
    text = process.log.read_text()
    failures = ("Signal handler", "cannot report", "cannot build", "cannot store", "failed Traceback", "thread failed")
    for sign in failures:
        assert sign not in text, text


@pytest.fixture(scope="session")
def worker(start_worker):
    with start_worker("-c", "2", "--pool", "prefork") as process:
        yield process
    check_log(process)


@pytest.fixture
def states():
    """An operation without a server; returns the state of its progress by stage."""
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


@pytest.fixture(scope="session")
def rabbit_worker(start_worker):
    with start_worker("-c", "2", "--pool", "prefork", broker="rabbitmq") as process:
        yield process
    check_log(process)
