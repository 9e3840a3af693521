"""One system after the other, each with a gateway and a bus."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventbus import Bus, BusSettings
from eventbus.backends.redis.acl.roles import EMITTER, GATEWAY
from tests.deployments.deployment import KINDS, Deployment, running_deployment
from tests.webui_adapter.gateways import GatewayProcess, running

HASTE = {"ack_timeout": 0.5, "ack_attempts": 2}


@pytest.fixture(scope="module", params=KINDS)
def deployment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Each kind of Redis once for each file."""
    with running_deployment(request.param, tmp_path_factory.mktemp("deployment")) as found:
        yield found


@pytest.fixture
def settings(deployment: Deployment, tmp_path: Path) -> BusSettings:
    return BusSettings(redis_url=deployment.url(EMITTER), spool_dir=tmp_path, retry_max=0.3, **HASTE)


@pytest.fixture
def bus(settings: BusSettings) -> Iterator[Bus]:
    made = Bus(settings)
    yield made
    made.close()


@pytest.fixture
def gateway(deployment: Deployment, tmp_path: Path) -> Iterator[GatewayProcess]:
    hurry = {f"EVENTBUS_{name.upper()}": value for name, value in HASTE.items()}
    with running(tmp_path, deployment.url(GATEWAY), "eb", sweep_interval=1, **hurry) as process:
        yield process


@pytest.fixture
def user() -> str:
    return f"u{uuid.uuid4().hex[:8]}"
