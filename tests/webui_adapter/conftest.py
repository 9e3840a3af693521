"""Gateway processes that many tests share. Each test has separate users."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator

import pytest

from eventbus import Bus, BusSettings
from tests.webui_adapter.gateways import ORIGIN, GatewayProcess, running

_numbers = itertools.count(1)


@pytest.fixture
def user() -> str:
    """A user that no other test has."""
    return f"u{next(_numbers)}"


@pytest.fixture
def collection() -> str:
    """A collection that no other test has."""
    return f"c{next(_numbers)}"


@pytest.fixture(scope="session")
def key_prefix() -> str:
    return f"gw{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory, redis_url: str, key_prefix: str) -> Iterator[GatewayProcess]:
    """The gateway of most tests: an Origin list, an application's own authoriser, otherwise defaults."""
    with running(
        tmp_path_factory.mktemp("gateway"),
        redis_url,
        key_prefix,
        allowed_origins=ORIGIN,
        authoriser="tests.webui_adapter.authoriser:may_read",
        auth_deadline=1.0,
        max_total_connections=500,
        instance="main",
    ) as process:
        yield process


@pytest.fixture(scope="session")
def brisk(tmp_path_factory: pytest.TempPathFactory, redis_url: str, key_prefix: str) -> Iterator[GatewayProcess]:
    """A gateway with short times and low limits, under a separate prefix."""
    with running(
        tmp_path_factory.mktemp("brisk"),
        redis_url,
        key_prefix,
        prefix="/live/bus",
        heartbeat_interval=0.8,
        heartbeat_timeout=0.8,
        stuck_after=1.0,
        close_timeout=0.7,
        auth_deadline=0.5,
        max_connections_per_user=2,
        max_total_connections=8,
        message_rate_limit=20,
        max_bad_commands=5,
        max_command_size=4096,
        max_topics=6,
        backlog_events=1500,
        backlog_bytes=200_000,
        write_high=8192,
        instance="brisk",
    ) as process:
        yield process


@pytest.fixture(scope="session")
def bus(redis_url: str, key_prefix: str) -> Iterator[Bus]:
    """A worker's bus, connected with the shared gateways."""
    own = Bus(BusSettings(redis_url=redis_url, key_prefix=key_prefix))
    yield own
    own.close()


@pytest.fixture
def publish(bus: Bus) -> Callable[..., None]:
    """Emit events of one operation of a user, and wait until they are in Redis."""

    def emit(user: str, *payloads: object, op: str = "op") -> None:
        for payload in payloads:
            bus.emit(user, op, payload)
        assert bus.flush(10)

    return emit
