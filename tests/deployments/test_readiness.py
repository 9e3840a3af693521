"""`/readyz` is true only while every slot, or the master, answers. A reason names what does not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from eventbus import Bus
from eventbus.backends.redis.acl.roles import GATEWAY
from tests.conftest import wait_until
from tests.deployments.deployment import Deployment
from tests.servers.cluster import RedisCluster
from tests.servers.processes import stopped
from tests.webui_adapter.events import Note
from tests.webui_adapter.gateways import GatewayProcess, page, running


def reason(gateway: GatewayProcess) -> str | None:
    answer = gateway.get("/readyz")
    found = answer.json()
    assert (answer.status_code == 200) is found["ready"] is (found["reason"] is None)
    return found["reason"]


@pytest.mark.parametrize("deployment", ["cluster", "cluster with TLS"], indirect=True)
def test_a_silent_shard_is_named(deployment: Deployment, gateway: GatewayProcess) -> None:
    cluster = deployment.system
    assert isinstance(cluster, RedisCluster)
    for owner in cluster.masters:
        slots = "-".join(str(slot) for slot in cluster.slots_of(owner))
        with stopped(owner, cluster.replica_of(owner)):
            wait_until(lambda: reason(gateway) == f"Redis does not answer for slots {slots}", f"slots {slots}", 30)  # noqa: B023
        wait_until(lambda: reason(gateway) is None, "the gateway to be ready", 30)


@pytest.mark.parametrize("deployment", ["cluster"], indirect=True)
def test_a_shard_that_died_without_a_replica_is_named(deployment: Deployment, tmp_path: Path) -> None:
    cluster = deployment.system
    assert isinstance(cluster, RedisCluster)
    owner = cluster.masters[0]
    first, last = cluster.slots_of(owner)
    with running(tmp_path, deployment.url(GATEWAY)) as gateway:
        replica = cluster.replica_of(owner)
        replica.kill()
        owner.kill()
        wait_until(lambda: reason(gateway) == f"Redis does not answer for slots {first}-{last}", "the reason", 30)
        owner.start()
        replica.start()
        deployment.make_users()
        cluster.wait_ready()
        wait_until(lambda: reason(gateway) is None, "the gateway to be ready", 30)


@pytest.mark.parametrize("deployment", ["sentinel", "sentinel with TLS"], indirect=True)
async def test_a_failover_makes_the_gateway_ready_again(
    deployment: Deployment, gateway: GatewayProcess, bus: Bus, user: str
) -> None:
    system = deployment.system
    assert not isinstance(system, RedisCluster)
    old = system.master
    async with page(gateway, user) as client:
        old.kill()
        await asyncio.to_thread(wait_until, lambda: reason(gateway) == "the gateway has lost Redis", "the reason", 30)
        await asyncio.to_thread(system.wait_for_another, old)
        await asyncio.to_thread(wait_until, lambda: reason(gateway) is None, "the gateway to be ready", 30)
        bus.emit(user, "op", Note(n=1))
        await client.until(lambda page: page.got("gw.note") == [1], "an event of the new master", 30)
