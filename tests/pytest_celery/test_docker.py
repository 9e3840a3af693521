"""With pytest-celery's own broker and backend in Docker: skipped only where no engine answers."""

from __future__ import annotations

import docker
import pytest
from docker.errors import DockerException
from pytest_celery import REDIS_CONTAINER_TIMEOUT, CeleryBackendCluster, CeleryBrokerCluster, RedisContainer
from pytest_docker_tools import container, fxtr

from eventbus.operations.events import OperationSucceeded
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


class Redis(RedisContainer):
    """Where this process reaches it: pytest-celery says localhost, also if the tests run in a container themselves."""

    @property
    def host_url(self) -> str:
        host, port = self.get_addr("6379/tcp")
        return f"{self.prefix()}{host}:{port}/{self.vhost}"


def _redis(role: str) -> object:
    """pytest-celery's own fixture of a Redis, with our class of container."""
    return container(
        image=f"{{default_redis_{role}_image}}",
        ports=fxtr(f"default_redis_{role}_ports"),
        environment=fxtr(f"default_redis_{role}_env"),
        network="{default_pytest_celery_network.name}",
        wrapper_class=Redis,
        timeout=REDIS_CONTAINER_TIMEOUT,
        command=fxtr(f"default_redis_{role}_command"),
    )


default_redis_broker = _redis("broker")
default_redis_backend = _redis("backend")


@pytest.fixture
def celery_broker_cluster(celery_redis_broker) -> CeleryBrokerCluster:
    return CeleryBrokerCluster(celery_redis_broker)


@pytest.fixture
def celery_backend_cluster(celery_redis_backend) -> CeleryBackendCluster:
    return CeleryBackendCluster(celery_redis_backend)


async def test_an_operation_over_docker_nodes(celery_setup, eventbus_bus, eventbus_connect, eventbus_user):
    assert celery_setup.ready(ping=False, control=True, docker=True)
    operation = start_operation(index.s(["a", "b"]), user=eventbus_user)
    async with eventbus_connect(eventbus_user, cursor=operation.cursor) as page:
        await page.event(OperationSucceeded, 30, operation=operation.id)
    assert operation.result.get(timeout=10) == 2
    assert celery_setup.backend.container.client.exists(f"celery-task-meta-{operation.result.id}")
    operation.result.forget()  # while there is a backend
