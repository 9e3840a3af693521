"""The state that a worker reports, also while Redis is down."""

import functools
import os
import subprocess
import sys

import redis

from tests.conftest import wait_until
from tests.worker_adapter import lives as a
from tests.worker_adapter.conftest import ROOT, check_log
from tests.worker_adapter.lifecycle.leases.conftest import SHORT


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
    """Return the answer of a worker to ``inspect eventbus``; empty if it takes too long.

    A connection of the pool may lead to a broker that an earlier test has stopped: redis-py before 6 reports that once.
    """
    try:
        answers = a.app.control.inspect([worker], timeout=10, limit=1)._request("eventbus")
    except redis.ConnectionError:
        return {}
    return next(iter((answers or {}).values()), {})


def test_the_command_line_knows_the_command(redis_url):
    environment = {**os.environ, "TESTS_REDIS": redis_url.removesuffix("/0")}
    command = [sys.executable, "-m", "celery", "-A", "tests.worker_adapter.lives", "inspect", "--list"]
    listed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=30)
    assert "eventbus" in listed.stdout + listed.stderr
