"""Real parts that the tests break, a scale for the load, and a table of the figures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from eventbus import Bus, BusSettings
from tests.chaos.oracle import figures, judge
from tests.chaos.watcher import Emitter, Watcher
from tests.conftest import RedisServer, wait_until
from tests.servers.cluster import RedisCluster, running_cluster
from tests.webui_adapter.gateways import GatewayProcess, running
from tests.webui_adapter.health.test_redis_down import KeepingRedis

# 1 is quick, for `make test`. `make chaos` sets more.
SCALE = float(os.environ.get("CHAOS_SCALE", "1"))

_figures: list[str] = []


@pytest.fixture
def scale() -> float:
    return SCALE


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A separate server that keeps its data when a test kills it."""
    server = KeepingRedis(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as found:
        yield found


@pytest.fixture
def empty_cluster(cluster: RedisCluster) -> RedisCluster:
    """The cluster of this module, without data. All its nodes run."""
    for node in cluster.nodes:
        if node.process is None:
            node.start()
    cluster.wait_ready()
    cluster.flush()
    return cluster


@pytest.fixture
def bus(redis: RedisServer, tmp_path: Path, scale: float) -> Iterator[Bus]:
    """A bus whose log grows with the fault. An event beyond the log would be a gap, which row 2 tests."""
    limit = round(10_000 * max(1.0, scale))
    made = Bus(
        BusSettings(
            redis_url=redis.url, socket_timeout=0.7, retry_max=0.3, log_limit=limit, spool_dir=tmp_path / "spool"
        )
    )
    yield made
    made.close()


@pytest.fixture
def gateway(redis: RedisServer, tmp_path: Path) -> Iterator[GatewayProcess]:
    with running(tmp_path, redis.url, "eb") as process:
        yield process


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Return a function that adds a row's figures to the table at the end."""

    def note(**facts: object) -> None:
        _figures.append(f"{request.node.name}: " + ", ".join(f"{name} {value}" for name, value in facts.items()))

    return note


@pytest.fixture
def settle(report: Callable[..., None]) -> Callable[..., object]:
    """Return a function that waits until all events have arrived, judges them, and reports the figures."""

    async def settle(bus: Bus, emitter: Emitter, *watchers: Watcher, **facts: object) -> None:
        from tests.webui_adapter.gateways import eventually  # noqa: PLC0415 - only here

        wait_until(lambda: bus.flush(1), "the outbox to empty", 30)
        for watcher in watchers:
            expected = emitter.acknowledged(watcher.user)

            def arrived(watcher: Watcher = watcher, expected: list[str] = expected) -> bool:
                verdict = judge(expected, watcher.page)
                return verdict.lost == 0 or verdict.declared

            await eventually(arrived, f"the acknowledged events to reach {watcher.user}", 30)
        verdicts = [judge(emitter.acknowledged(watcher.user), watcher.page) for watcher in watchers]
        report(
            **figures(verdicts, [watcher.page for watcher in watchers]),
            longest_pause=f"{max(watcher.longest_pause for watcher in watchers):.1f} s",
            connects=sum(watcher.connects for watcher in watchers),
            **facts,
        )
        for verdict in verdicts:
            assert verdict.holds, verdict

    return settle


@pytest.fixture
def settled(bus: Bus, settle: Callable[..., object]) -> Callable[..., object]:
    """Return ``settle`` for the bus of most tests."""
    return partial(settle, bus)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _figures:
        terminalreporter.section("faults")
        for line in _figures:
            terminalreporter.write_line(line)
