"""With pytest-celery's own broker and backend in Docker: skipped only where no engine answers."""

from __future__ import annotations

import docker
import pytest
from docker.errors import DockerException
from pytest_celery import CeleryBackendCluster, CeleryBrokerCluster

from eventbus.operation import OperationSucceeded
from tests.pytest_celery.shop import index
from worker_adapter import start_operation


def _engine() -> str | None:
    """Why there is no engine; None if there is one."""
    try:
        client = docker.from_env(timeout=5)
        try:
            client.ping()
        finally:
            client.close()
    except DockerException as error:
        return str(error)
    return None


# A mark and no fixture: pytest-docker-tools' client is made before any fixture of ours.
REASON = _engine()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"no Docker engine: {REASON}")


@pytest.fixture
def celery_broker_cluster(celery_redis_broker) -> CeleryBrokerCluster:
    return CeleryBrokerCluster(celery_redis_broker)


@pytest.fixture
def celery_backend_cluster(celery_redis_backend) -> CeleryBackendCluster:
    return CeleryBackendCluster(celery_redis_backend)


async def test_an_operation_over_docker_nodes(celery_setup, eventbus_bus, eventbus_connect, eventbus_user):
    operation = start_operation(index.s(["a", "b"]), user=eventbus_user)
    async with eventbus_connect(eventbus_user, cursor=operation.cursor) as page:
        await page.event(OperationSucceeded, 30, operation=operation.id)
