"""A worker killed in the middle of emitting: row 16 of the table in README.md."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventbus import BusSettings, configure, default_bus
from tests.chaos import emitting_tasks as a
from tests.chaos.oracle import judge
from tests.chaos.watcher import Watcher
from tests.conftest import RedisServer
from tests.soak.fleet import Worker
from tests.webui_adapter.gateways import GatewayProcess, eventually, running
from worker_adapter import start_operation

LEASE = {"EVENTBUS_WORKER_LEASE": "1.5", "EVENTBUS_WORKER_CANCEL_POLL": "0.1"}


@pytest.fixture
def gateway(redis: RedisServer, tmp_path: Path) -> Iterator[GatewayProcess]:
    with running(tmp_path, redis.url, "eb", sweep_interval=0.2, sweep_lease=1, lease_grace=1.5) as process:
        yield process


@pytest.fixture
def worker(redis: RedisServer, tmp_path: Path) -> Iterator[Worker]:
    server = redis.url.removesuffix("/0")
    a.app.conf.broker_url = f"{server}/1"
    a.app._pool = a.app.amqp._producer_pool = None
    previous = default_bus()
    configure(BusSettings(redis_url=redis.url))
    environment = {**os.environ, "TESTS_REDIS": server, "EVENTBUS_REDIS_URL": redis.url, **LEASE}
    worker = Worker("emitting", tmp_path / "worker.log", environment, 1, app="tests.chaos.emitting_tasks")
    worker.start()
    worker.wait_ready()
    yield worker
    worker.ask_to_stop()
    worker.stop()
    configure(bus=previous)


def lines(notes: Path) -> list[list[str]]:
    return [line.split() for line in notes.read_text().splitlines() if line.count(" ") == 1] if notes.exists() else []


@pytest.mark.parametrize(
    ("task", "killed", "expected"),
    [
        ("emit_late", "process", ["queued", "started", "succeeded"]),
        ("emit_late", "worker", ["queued", "started", "lost", "resumed", "succeeded"]),
        ("emit_once", "process", ["queued", "started", "failed"]),
        ("emit_once", "worker", ["queued", "started", "failed"]),
    ],
)
async def test_16_killed_while_it_emits(
    task, killed, expected, redis, gateway, worker, tmp_path, scale, report
) -> None:
    notes = tmp_path / "notes"
    async with Watcher("ann", gateway) as ann:

        def received() -> list[str]:
            types = [event["type"] for event in ann.page.events if event["type"].startswith("operation.")]
            return [type_.removeprefix("operation.") for type_ in types if type_ != "operation.progress"]

        operation = start_operation(getattr(a, task).si(str(notes), 50), user="ann")
        await eventually(lambda: len(lines(notes)) >= 10 * scale, "the task to emit", 60)
        if killed == "process":
            os.kill(int(lines(notes)[0][0]), signal.SIGKILL)
        else:
            os.killpg(worker.pid, signal.SIGKILL)
            await eventually(lambda: set(received()) & {"lost", "failed"}, "the loss to reach the page", 20)
            worker.start()
        await eventually(lambda: set(received()) & {"succeeded", "failed"}, "the end to reach the page", 40)

        confirmed = max(int(line[1]) for line in lines(notes))
        verdict = judge((f"{operation.id}-{n}" for n in range(confirmed + 1)), ann.page)
        report(acknowledged=verdict.acknowledged, received=verdict.received, lost=verdict.lost)
        assert verdict.holds, verdict
        assert not verdict.declared
        assert received() == expected
        lives = len({pid for pid, _ in lines(notes)})
        assert lives == (2 if expected[-1] == "succeeded" else 1)
        errors = [event["data"]["error"] for event in ann.page.events if event["type"] == "task.failed"]
        assert [error.partition(":")[0] for error in errors] == (["WorkerLost"] if expected[-1] == "failed" else [])
