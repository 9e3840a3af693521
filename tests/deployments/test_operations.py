"""Celery tasks whose operation is on Sentinel or in a cluster: reported, counted and cancelled."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import group

from eventbus import BusSettings, configure, default_bus
from eventbus.backends.redis.acl.roles import EMITTER
from tests.conftest import RedisServer, wait_until
from tests.deployments import app as application
from tests.deployments.deployment import Deployment
from tests.webui_adapter.gateways import GatewayProcess, eventually, page
from worker_adapter import start_operation

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def worker(
    deployment: Deployment, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A worker with another server as broker: Celery's broker cannot be a cluster."""
    broker = redis_server.url.replace("/0", "/7")
    application.app.conf.update(broker_url=broker, result_backend=broker)
    log = tmp_path_factory.mktemp("worker") / "log"
    command = [sys.executable, "-m", "celery", "-A", "tests.deployments.app", "worker", "-l", "INFO", "-c", "2"]
    environment = {
        **os.environ,
        "TESTS_BROKER": broker,
        "EVENTBUS_REDIS_URL": deployment.url(EMITTER),
        "EVENTBUS_WORKER_CANCEL_POLL": "0.1",
        "C_FORCE_ROOT": "1",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "-Q", "deployments", "--without-gossip", "--without-mingle", "--without-heartbeat"],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(lambda: b" ready." in log.read_bytes() or process.poll() is not None, f"the worker, see {log}", 60)
        assert process.poll() is None, log.read_text()
        yield log
    finally:
        process.terminate()
        process.wait(20)
        application.app.close()


@pytest.fixture(autouse=True)
def _own_bus(settings: BusSettings) -> Iterator[None]:
    """The bus of this process, as a web application has it."""
    former = default_bus()
    made = configure(settings)
    yield
    made.close()
    configure(bus=former)


async def test_an_operation_is_reported_to_its_end(worker: Path, gateway: GatewayProcess, user: str) -> None:
    async with page(gateway, user) as client:
        operation = await asyncio.to_thread(
            start_operation, group(application.walk.s(3) for _ in range(4)), user=user, label="Walk"
        )
        await client.until(lambda page: page.got("operation.succeeded", "done"), "the end", 60)
        assert sorted(client.page.got("deployments.walked")) == sorted([0, 1, 2] * 4)
        listed = (await client.request(do="operations"))["data"]["operations"]
        assert [(one["id"], one["state"], one["done"]) for one in listed] == [(operation.id, "succeeded", 4)]


async def test_a_page_cancels_an_operation(worker: Path, gateway: GatewayProcess, user: str, tmp_path: Path) -> None:
    path = tmp_path / "begun"
    async with page(gateway, user) as client:
        operation = await asyncio.to_thread(start_operation, application.run_on.si(str(path)), user=user)
        await eventually(path.exists, "the task to begin", 30)
        await client.request(do="cancel", operation=operation.id)
        await client.until(lambda page: page.got("operation.cancelled", "done"), "the end", 60)
    wait_until(lambda: operation.result.state == "REVOKED", "the result")
