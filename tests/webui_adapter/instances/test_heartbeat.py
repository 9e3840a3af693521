"""Gateways in the registry of instances: ready, draining, lost and back. Real processes and signals."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from eventbus.backends.instances import InstanceState
from eventbus.cli.main import cli
from tests.conftest import RedisServer, wait_until
from tests.webui_adapter.gateways import page, running
from webui_adapter.health.status import Degradation, HealthStatus
from webui_adapter.instances.heartbeat import instance_state

LEASE = 1.0
HASTY = {"EVENTBUS_INSTANCE_LEASE": LEASE, "instance_interval": 0.2}


def list_instances(redis_url: str, prefix: str, *options: str) -> Result:
    environment = {"EVENTBUS_REDIS_URL": redis_url, "EVENTBUS_KEY_PREFIX": prefix}
    return CliRunner().invoke(cli, ["instances", *options], env=environment)


def facts_of(redis_url: str, prefix: str) -> dict[str, dict[str, object]]:
    return {str(facts["name"]): facts for facts in _all_facts(redis_url, prefix)}


def _all_facts(redis_url: str, prefix: str) -> list[dict[str, object]]:
    # Older versions of click write both outputs into one.
    lines = list_instances(redis_url, prefix, "--json").output.splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


@pytest.fixture
def prefix(user: str) -> str:
    return f"hb-{user}"


@pytest.fixture
def states(redis_url: str, prefix: str) -> Callable[[], dict[str, object]]:
    return lambda: {name: facts["state"] for name, facts in facts_of(redis_url, prefix).items()}


@pytest.mark.parametrize("troubles", list(product([False, True], repeat=len(Degradation))))
@pytest.mark.parametrize("been_ready", [False, True])
def test_the_state_of_an_instance(troubles, been_ready):
    present = [trouble for trouble, there in zip(Degradation, troubles, strict=True) if there]
    health = HealthStatus(lambda _: None, dict.fromkeys(present, "reason"))
    assert instance_state(health, leaving=True, been_ready=been_ready) is InstanceState.DRAINING
    state = instance_state(health, leaving=False, been_ready=been_ready)
    assert (state is InstanceState.READY) == (not present)
    assert (state is InstanceState.STARTING) == (not been_ready and Degradation.LOST in present)
    if state in (InstanceState.READ_ONLY, InstanceState.DEGRADED):
        assert (state is InstanceState.READ_ONLY) == bool(health.read_only)


async def test_an_operator_sees_who_runs(tmp_path: Path, redis_url: str, prefix: str, user: str) -> None:
    with (
        running(tmp_path, redis_url, prefix, instance="gateway-1", **HASTY) as one,
        running(tmp_path, redis_url, prefix, instance="gateway-2", **HASTY) as two,
    ):
        async with page(one, user), page(one, user), page(one, f"{user}-b"):
            wait_until(
                lambda: (facts_of(redis_url, prefix).get("gateway-1") or {}).get("connections") == 3, "the connections"
            )
            first = facts_of(redis_url, prefix)["gateway-1"]
            assert (first["users"], first["state"], first["pid"], first["reason"]) == (2, "ready", one.pid, "")
            assert isinstance(first["memory"], int)
            assert abs(first["memory"] - one.memory()) < 2**24
            wait_until(lambda: facts_of(redis_url, prefix)["gateway-2"]["state"] == "ready", "the second instance")
            table = list_instances(redis_url, prefix)
        assert facts_of(redis_url, prefix)["gateway-2"]["pid"] == two.pid
    assert table.exit_code == 0
    head, *rows = table.stdout.splitlines()
    assert head.split()[:3] == ["NAME", "STATE", "UP"]
    assert [row.split()[:2] for row in rows] == [["gateway-1", "ready"], ["gateway-2", "ready"]]


def test_no_gateway_runs(redis_url: str, prefix: str) -> None:
    result = list_instances(redis_url, prefix)
    assert result.exit_code == 1
    assert result.output == "no gateway runs with this Redis and key prefix\n"


def test_redis_is_down(prefix: str) -> None:
    result = list_instances("redis://127.0.0.1:9/0", prefix)
    assert result.exit_code == 3
    assert "EVENTBUS_REDIS_URL names 127.0.0.1:9\n" in result.output


def test_a_killed_gateway_is_lost(tmp_path: Path, redis_url: str, prefix: str, states) -> None:
    with running(tmp_path, redis_url, prefix, instance="gateway-1", **HASTY) as first:
        wait_until(lambda: states() == {"gateway-1": "ready"}, "the instance")
        killed = facts_of(redis_url, prefix)["gateway-1"]["life"]
        first.process.kill()
        wait_until(lambda: states() == {"gateway-1": "lost"}, "the end of the lease")
    with running(tmp_path, redis_url, prefix, instance="gateway-1", **HASTY) as second:
        ready = lambda: ("ready", second.pid) in _seen(redis_url, prefix)  # noqa: E731
        wait_until(ready, "the new process and the lost one")
        lives = {life for _, _, life in _with_lives(redis_url, prefix)}
        assert len(lives) == 2
        assert killed in lives


def _with_lives(redis_url: str, prefix: str) -> list[tuple[object, object, object]]:
    return [(facts["state"], facts["pid"], facts["life"]) for facts in _all_facts(redis_url, prefix)]


def _seen(redis_url: str, prefix: str) -> list[tuple[object, object]]:
    return [(state, pid) for state, pid, _ in _with_lives(redis_url, prefix)]


async def test_sigterm_drains_then_leaves(tmp_path: Path, redis_url: str, prefix: str, user: str, states) -> None:
    times = {"drain_spread": 0.0, "shutdown_grace": 2.0, "instance_interval": 60, "EVENTBUS_INSTANCE_LEASE": 120}
    with running(tmp_path, redis_url, prefix, instance="gateway-1", **times) as gateway:
        async with page(gateway, user):
            gateway.signal(signal.SIGTERM)
            # Also with a long interval: the instance says immediately that it leaves.
            wait_until(lambda: states() == {"gateway-1": "draining"}, "the drain")
        gateway.wait()
        assert states() == {}


def test_a_process_that_slept_through_its_lease_says_so(tmp_path: Path, redis_url: str, prefix: str, states) -> None:
    with running(tmp_path, redis_url, prefix, instance="gateway-1", **HASTY) as gateway:
        wait_until(lambda: states() == {"gateway-1": "ready"}, "the instance")
        gateway.signal(signal.SIGSTOP)
        wait_until(lambda: states() == {"gateway-1": "lost"}, "the end of the lease")
        gateway.signal(signal.SIGCONT)
        wait_until(lambda: states() == {"gateway-1": "ready"}, "the return")
        assert gateway.metrics()["eventbus_instance_expirations_total"] == 1
        assert "the lease of this instance had ended" in gateway.log.read_text()


def test_redis_restarts_empty(tmp_path: Path, own_redis: RedisServer, prefix: str) -> None:
    with running(tmp_path, own_redis.url, prefix, instance="gateway-1", **HASTY) as gateway:
        wait_until(lambda: _seen(own_redis.url, prefix) == [("ready", gateway.pid)], "the instance")
        own_redis.kill()
        own_redis.start()
        wait_until(lambda: _seen(own_redis.url, prefix) == [("ready", gateway.pid)], "the same instance again")


def test_two_processes_of_one_name_are_reported(tmp_path: Path, redis_url: str, prefix: str) -> None:
    with (
        running(tmp_path, redis_url, prefix, instance="gateway-1", **HASTY),
        running(tmp_path, redis_url, prefix, instance="gateway-1", **HASTY) as two,
    ):
        wait_until(lambda: "give each its own WEBUI_INSTANCE" in two.log.read_text(), "the warning")
