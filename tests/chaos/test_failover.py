"""Another server becomes the master: rows 36 to 42 of the table in README.md."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from eventbus import Bus, BusSettings
from eventbus.backends.redis.scripts.keys import Keys
from tests.chaos.watcher import Emitter, Watcher
from tests.conftest import wait_until
from tests.servers.forwarder import Forwarder
from tests.servers.sentinel import MonitoredServer, SentinelSystem, running_sentinels
from tests.webui_adapter.events import Note
from tests.webui_adapter.gateways import eventually, running

Settled = Callable[..., Awaitable[None]]
# Seconds after which a page has new events, once a new master takes writes.
RECOVERED = 5.0
# Seconds that a verdict may take. On a busy machine the worker's statement takes more than the default.
PATIENCE = 30


def settings_of(url: str, folder: Path, **given: object) -> BusSettings:
    return BusSettings(redis_url=url, socket_timeout=0.7, retry_max=0.3, spool_dir=folder / "spool", **given)


async def emitted(emitter: Emitter, number: float) -> None:
    start = emitter.emitted
    await eventually(lambda: emitter.emitted >= start + number, f"{number:g} more events", 120)


async def resumed(emitter: Emitter, watcher: Watcher) -> float:
    """Wait until the page has an event that was emitted after this call. Return the seconds."""
    loop = asyncio.get_running_loop()
    began, start = loop.time(), emitter.emitted

    def arrived() -> bool:
        return any(
            event["data"].get("n", 0) > start for event in watcher.page.events[-50:] if event["type"] == "gw.note"
        )

    await eventually(arrived, "new events to arrive", 60)
    return loop.time() - began


# --- one name -----------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[MonitoredServer, MonitoredServer]]:
    """A master and its replica."""
    servers: list[MonitoredServer] = []
    try:
        for name in ("master", "replica"):
            folder = tmp_path / name
            folder.mkdir()
            servers.append(MonitoredServer(folder, servers[0].port if servers else None))
            servers[-1].start()
        wait_until(lambda: servers[1].client.info("replication")["master_link_status"] == "up", "the replica")
        yield servers[0], servers[1]
    finally:
        for server in servers:
            server.kill()


async def test_36_demoted_behind_one_name(
    pair: tuple[MonitoredServer, MonitoredServer], tmp_path: Path, report: Callable[..., None], settle: Settled
) -> None:
    old, new = pair
    with Forwarder(old.port) as name:
        url = f"redis://127.0.0.1:{name.port}/0"
        bus = Bus(settings_of(url, tmp_path))
        with running(tmp_path, url, "eb") as gateway:
            async with Watcher("ann", gateway) as ann:
                with Emitter(bus, ["ann"]) as emitter:
                    await emitted(emitter, 300)
                    await asyncio.to_thread(demote, old, new)
                    name.target = new.port
                    seconds = await resumed(emitter, ann)
                    await emitted(emitter, 300)
                await settle(bus, emitter, ann, recovered_after=f"{seconds:.1f} s")
            assert clients_of(old, "pubsub") == 0, "the subscriber has left the old master"
        bus.close()
    assert seconds < RECOVERED


def demote(old: MonitoredServer, new: MonitoredServer) -> None:
    """Swap the roles without a loss: writes wait until the replica has everything."""
    with old.client as client:
        client.client_pause(5_000, all=False)
        end = client.info("replication")["master_repl_offset"]
        wait_until(lambda: new.client.info("replication")["slave_repl_offset"] >= end, "the replica to have all")
        new.client.replicaof("NO", "ONE")
        client.replicaof("127.0.0.1", new.port)
        client.client_unpause()


def clients_of(server: MonitoredServer, kind: str) -> int:
    return len(server.client.client_list(_type=kind))


# --- Sentinel -----------------------------------------------------------------------------------------------------


@pytest.fixture
def system(tmp_path: Path) -> Iterator[SentinelSystem]:
    with running_sentinels(tmp_path) as started:
        yield started


def planned(system: SentinelSystem) -> None:
    system.fail_over()


def coordinated(system: SentinelSystem) -> None:
    system.fail_over(coordinated=True)


def killed(system: SentinelSystem) -> None:
    old = system.master
    old.kill()
    system.wait_for_another(old)


def stopped(system: SentinelSystem) -> None:
    old = system.master
    assert old.process is not None
    old.process.send_signal(signal.SIGSTOP)
    system.wait_for_another(old)
    old.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(
    ("change", "durable"),
    [
        (planned, "replicas"),
        (coordinated, "none"),
        (killed, "replicas"),
        (stopped, "replicas"),
        (planned, "none"),
        (coordinated, "replicas"),
    ],
    ids=[
        "37_planned_durable",
        "38_coordinated",
        "39_killed_durable",
        "40_stopped_durable",
        "41_planned",
        "42_coordinated_durable",
    ],
)
async def test_sentinel(
    system: SentinelSystem,
    change: Callable[[SentinelSystem], None],
    durable: str,
    tmp_path: Path,
    settle: Settled,
) -> None:
    given = {"durable": durable, "timeline_patience": PATIENCE}
    bus = Bus(settings_of(system.url, tmp_path, durable_timeout=0.5, **given))
    bus.emit("bob", "op", Note(n=0), strict=True)
    variables = {f"EVENTBUS_{name.upper()}": value for name, value in given.items()}
    with running(tmp_path, system.url, "eb", **variables) as gateway:
        async with Watcher("ann", gateway) as ann, Watcher("bob", gateway) as bob:
            with Emitter(bus, ["ann"], pause=0.002) as emitter:
                await emitted(emitter, 300)
                await asyncio.to_thread(change, system)
                seconds = await resumed(emitter, ann)
                await emitted(emitter, 300)
            await settle(bus, emitter, ann, recovered_after=f"{seconds:.1f} s")
    entries = system.master.client.xrange(Keys("eb").channel("user:ann")[1])
    log = b"".join(b"".join(fields.values()) for _, fields in entries)
    missing = [id_ for id_ in emitter.acknowledged("ann") if id_.encode() not in log]
    if durable == "replicas" or change is coordinated:
        assert not missing, "the new master has every event that counted as published"
    if change is coordinated:
        assert ann.page.gaps == 0, "nothing was lost"
    if durable == "replicas" or change is coordinated:
        assert bob.page.gaps == 0, "a page that received nothing unconfirmed continues"
    bus.close()
    assert seconds < RECOVERED
