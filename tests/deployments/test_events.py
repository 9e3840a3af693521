"""Events on Sentinel and in a cluster: emitted, resumed, acknowledged, redelivered, and dead letters by the CLI."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from eventbus import Bus, BusSettings
from eventbus.backends.redis.acl.roles import ADMIN
from eventbus.cli.main import cli
from tests.conftest import wait_until
from tests.deployments.deployment import Deployment
from tests.webui_adapter.events import Note, Progress, Promise, Summons
from tests.webui_adapter.gateways import GatewayProcess, page

Shell = Callable[..., tuple[int, str]]


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, deployment: Deployment) -> Shell:
    monkeypatch.setenv("EVENTBUS_REDIS_URL", deployment.url(ADMIN))

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(cli, arguments)
        return result.exit_code, result.output

    return run


async def flushed(bus: Bus) -> None:
    assert await asyncio.to_thread(bus.flush, 10), "Redis takes the events"


async def test_a_page_receives_events_and_resumes(gateway: GatewayProcess, bus: Bus, user: str) -> None:
    async with page(gateway, user) as client:
        for n in range(5):
            bus.emit(user, "op", Note(n=n))
        await client.until(lambda page: page.got("gw.note") == [0, 1, 2, 3, 4])
    for n in range(5, 9):
        bus.emit(user, "op", Note(n=n))
    bus.emit(user, "op", Progress(done=3))
    await flushed(bus)
    async with page(gateway, user, client.page) as client:
        await client.until(lambda page: page.got("gw.note") == list(range(9)))
        assert client.page.got("gw.progress", "done") == [3]
        assert not client.page.data_of("bus.gap")


async def test_an_acknowledged_event_is_delivered(gateway: GatewayProcess, bus: Bus, user: str) -> None:
    first = bus.emit(user, "op", Promise(n=1))
    second = bus.emit(user, "op", Summons(n=2))
    await flushed(bus)
    async with page(gateway, user) as client:
        await client.until(lambda page: len(page.unacked) == 2)
        answer = await client.request(do="ack", ids=client.page.unacked)
        assert answer["data"]["acked"] == 2
    assert await asyncio.to_thread(first.wait_delivered, 5)
    assert await asyncio.to_thread(second.wait_delivered, 5)


async def test_an_event_without_an_acknowledgement_comes_again_and_dies(
    gateway: GatewayProcess, bus: Bus, user: str, shell: Shell
) -> None:
    receipt = bus.emit(user, "op", Promise(n=1))
    async with page(gateway, user) as client:
        await client.until(lambda page: len(client.raw) and client.page.got("gw.promise") == [1])
        times = lambda: sum(receipt.id in str(raw) for raw in client.raw)  # noqa: E731
        await client.until(lambda _: times() >= 2, "the event again")
        dead = ("dead-letters", "list", "--user", user)
        await asyncio.to_thread(wait_until, lambda: receipt.id in shell(*dead)[1], "the dead letter")
    code, text = shell("dead-letters", "list", "--user", user, "--json")
    assert code == 0
    assert json.loads(text)["reason"] == "attempts"
    assert json.loads(shell("dead-letters", "count", "--user", user, "--json")[1]) == {"attempts": 1}
    assert '"n":1' in shell("dead-letters", "show", user, receipt.id)[1]
    assert shell("dead-letters", "requeue", receipt.id, "--user", user) == (0, "requeued 1\n")
    async with page(gateway, user, client.page) as again:
        await again.until(lambda page: page.unacked)
        await again.request(do="ack", ids=again.page.unacked)
    assert shell("dead-letters", "list", "--user", user)[0] == 1


async def test_dead_letters_of_all_shards_are_listed_and_purged(
    deployment: Deployment, bus: Bus, settings: BusSettings, shell: Shell
) -> None:
    full = Bus(settings.model_copy(update={"pending_limit": 1}))
    users = [f"full-{n}" for n in range(6)]
    for user in users:
        for n in range(2):
            full.emit(user, "op", Promise(n=n))
    await flushed(full)
    full.close()
    listed = [json.loads(line) for line in shell("dead-letters", "list", "--reason", "full", "--json")[1].splitlines()]
    assert {one["channel"] for one in listed} == {f"user:{user}" for user in users}
    code, text = shell("dead-letters", "purge", "--reason", "full", "--yes")
    assert (code, text) == (0, "purged 6\n")
    assert shell("dead-letters", "list", "--reason", "full")[0] == 1
    assert not deployment.keys_without_ttl()


async def test_a_fork_sends_a_gap_to_every_page(gateway: GatewayProcess, bus: Bus, user: str, shell: Shell) -> None:
    users = [user, *(f"{user}-{n}" for n in range(4))]
    pages = []
    for one in users:
        async with page(gateway, one) as client:
            bus.emit(one, "op", Note(n=1))
            await client.until(lambda page: page.got("gw.note") == [1])
            pages.append(client.page)
    code, text = shell("fork")
    assert code == 0
    assert int(text.split()[1]) >= len(users)
    for one, former in zip(users, pages, strict=True):
        async with page(gateway, one, former) as client:
            assert [gap["reason"] for gap in client.page.data_of("bus.gap")] == ["epoch"]
            bus.emit(one, "op", Note(n=2))
            await client.until(lambda page: page.got("gw.note") == [1, 2])


def test_a_fork_of_nothing_says_so(deployment: Deployment, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    for client in deployment.clients():
        client.flushall()
    assert shell("fork") == (1, "forked 0 channels\n")


async def test_the_gateway_is_ready_and_listed(gateway: GatewayProcess, shell: Shell) -> None:
    assert gateway.get("/readyz").json() == {"ready": True, "reason": None}
    await asyncio.to_thread(wait_until, lambda: shell("instances")[0] == 0, "the instance")
    assert str(gateway.pid) in shell("instances")[1]
