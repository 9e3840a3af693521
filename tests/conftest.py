"""Fixtures of all tests: a real server, fresh keys per test, and a check that every key has a TTL."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis
from hypothesis import settings

from eventbus import BusSettings
from eventbus.testing import RedisServer, free_port, server_binary

if TYPE_CHECKING:
    from tests.servers.cluster import RedisCluster

__all__ = ["RedisServer", "free_port", "keys_without_ttl", "server_binary", "wait_until"]

# Celery's and kombu's own keys in the same server; not ours to expire. Each pattern has its reason.
EXEMPT_FROM_TTL = (
    b"_kombu.binding.",  # kombu: routing tables
    b"unacked",  # kombu: messages a worker holds
    b"celery",  # kombu: the default queue
)


# How long an example takes says something of the machine, nothing of the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def wait_until(condition: Callable[[], object], what: str, seconds: float = 15.0) -> None:
    """Wait for a condition; fail with what was waited for. The only place in the tests where time passes idly."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:g} s for: {what}")
        time.sleep(0.01)


def pytest_report_header() -> str:
    """Say which server the run used."""
    return f"server: {server_binary()}"


@pytest.fixture(scope="session", autouse=True)
def _spools_of_this_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give the spools of this test run a separate folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVENTBUS_SPOOL_DIR", str(tmp_path_factory.mktemp("spool")))
        yield


@pytest.fixture(scope="session")
def redis_server(eventbus_server: RedisServer) -> RedisServer:
    """One server for the whole run. Tests that hurt a server take ``own_redis``."""
    return eventbus_server


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server for one test, which may kill it."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """One cluster of six nodes for the whole run. Tests that hurt a cluster start their own."""
    from tests.servers.cluster import running_cluster  # noqa: PLC0415 - it imports this module

    with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def redis_url(redis_server: RedisServer) -> str:
    return redis_server.url


@pytest.fixture
def bus_settings(redis_url: str) -> BusSettings:
    """Settings with a key prefix of the test's own."""
    return BusSettings(redis_url=redis_url, key_prefix=f"t{uuid.uuid4().hex[:10]}")


@pytest.fixture(autouse=True)
def _every_key_has_a_ttl(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test that may have touched the server: every key has a TTL, or is exempt by name."""
    yield
    if "eventbus_server" not in request.fixturenames:
        return
    server: RedisServer = request.getfixturevalue("eventbus_server")
    without_ttl = [key for key in keys_without_ttl(server.client) if not key.startswith(EXEMPT_FROM_TTL)]
    assert not without_ttl, f"keys without a TTL: {without_ttl[:10]}"


def keys_without_ttl(client: redis.Redis) -> list[bytes]:
    keys = list(client.scan_iter(count=1000))
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.ttl(key)
    return [key for key, ttl in zip(keys, pipeline.execute(), strict=True) if ttl == -1]
