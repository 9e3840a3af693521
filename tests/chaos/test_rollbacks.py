"""Redis' data goes back in time: rows 29 to 35 and 43 of the table in README.md. Each event is received or declared."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eventbus import Bus, BusSettings
from tests.chaos.notes import Notes, Report, has_all, returning, settled
from tests.chaos.watcher import Watcher
from tests.conftest import RedisServer, free_port, wait_until
from tests.webui_adapter.gateways import GatewayProcess, eventually, running
from tests.webui_adapter.page import Page

pytestmark = pytest.mark.timeout(60)


class SavingRedis(RedisServer):
    """A server that writes an RDB file when a test asks for it, and when it ends in order."""

    appendonly = "no"

    def command(self) -> list[str]:
        return [*super().command(), "--save", "3600", "1000000", "--appendonly", self.appendonly]

    def end(self) -> None:
        """End it in order: it writes its file first."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        self.process = None

    @property
    def file(self) -> Path:
        return self.folder / "dump.rdb"

    def keep_copy(self) -> None:
        """Write the RDB file and keep a copy of it."""
        self.client.save()
        shutil.copy(self.file, self.folder / "older.rdb")

    def start_from_copy(self) -> None:
        """Start again with the older file."""
        shutil.copy(self.folder / "older.rdb", self.file)
        self.start()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SavingRedis]:
    made = SavingRedis(tmp_path_factory.mktemp("rollbacks"), free_port())
    made.start()
    yield made
    made.kill()


@pytest.fixture(scope="module")
def gateway(server: SavingRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with running(tmp_path_factory.mktemp("gateway"), server.url, "eb") as process:
        yield process


@pytest.fixture
def redis(server: SavingRedis, gateway: GatewayProcess) -> SavingRedis:
    """The server of this module, which a test may have left stopped or with another kind of file."""
    if server.appendonly == "yes":
        server.kill()
        server.appendonly = "no"
    if server.process is None:
        server.start()
    wait_until(lambda: gateway.get("/readyz").status_code == 200, "the gateway to be ready", 20)
    return server


@pytest.fixture
def bus(redis: RedisServer, tmp_path: Path) -> Iterator[Bus]:
    made = Bus(BusSettings(redis_url=redis.url, socket_timeout=0.7, retry_max=0.3, spool_dir=tmp_path / "spool"))
    yield made
    made.close()


@pytest.fixture
def notes(bus: Bus) -> Notes:
    return Notes(bus, f"ann-{secrets.token_hex(4)}")


async def back(redis: RedisServer, start: Callable[[], None], notes: Notes) -> None:
    """Start the server, and check that events are accepted again soon."""
    await asyncio.to_thread(start)
    await notes.confirmed(1)


async def test_29_older_file_and_a_cursor_beyond_it(
    redis: SavingRedis, gateway: GatewayProcess, notes: Notes, report: Report
) -> None:
    async with Watcher(notes.user, gateway) as ann:
        await notes.confirmed(150)
        redis.keep_copy()
        await notes.confirmed(350)
        await has_all(ann, notes)
    redis.kill()
    await back(redis, redis.start_from_copy, notes)
    await notes.confirmed(600)
    async with returning(ann, gateway) as ann:
        await settled(ann, notes, report, gaps=1)


async def test_30_older_file_and_a_cursor_before_it(
    redis: SavingRedis, gateway: GatewayProcess, notes: Notes, report: Report
) -> None:
    async with Watcher(notes.user, gateway) as ann:
        await notes.confirmed(100)
        await has_all(ann, notes)
    await notes.confirmed(50)
    redis.keep_copy()
    await notes.confirmed(350)
    redis.kill()
    await back(redis, redis.start_from_copy, notes)
    await notes.confirmed(600)
    async with returning(ann, gateway) as ann:
        await settled(ann, notes, report, gaps=1)


async def test_43_older_file_and_a_page_that_asks_from_the_beginning(
    redis: SavingRedis, gateway: GatewayProcess, notes: Notes, report: Report
) -> None:
    await notes.confirmed(100)
    redis.keep_copy()
    await notes.confirmed(100)
    redis.kill()
    await back(redis, redis.start_from_copy, notes)
    await notes.confirmed(50)
    ann = Watcher(notes.user, gateway)
    ann.page = Page(f"user:{notes.user}=0")
    async with ann:
        await settled(ann, notes, report, gaps=1)


async def test_31_older_file_and_the_backlog_comes_first(
    redis: SavingRedis, gateway: GatewayProcess, notes: Notes, report: Report
) -> None:
    async with Watcher(notes.user, gateway) as ann:
        await notes.confirmed(150)
        redis.keep_copy()
        await notes.confirmed(350)
        await has_all(ann, notes)
        redis.kill()
        await eventually(lambda: ann.page.data_of("bus.degraded"), "the control event")
        gateway.signal(signal.SIGSTOP)
        notes.emit(600)
        await back(redis, redis.start_from_copy, notes)
        gateway.signal(signal.SIGCONT)
        await settled(ann, notes, report, gaps=1)


@pytest.mark.parametrize("away", [False, True], ids=["live", "away"])
async def test_32_keys_are_restored(
    redis: SavingRedis, gateway: GatewayProcess, notes: Notes, report: Report, away: bool
) -> None:
    client = redis.client
    async with Watcher(notes.user, gateway) as ann:
        await notes.confirmed(150)
        kept = {key: client.dump(key) for key in client.keys(f"eb:{{user:{notes.user}}}:*")}
        await notes.confirmed(350)
        await has_all(ann, notes)
        if not away:
            restore(client, kept)
            await notes.confirmed(600)
            await settled(ann, notes, report, gaps=1)
            return
    restore(client, kept)
    await notes.confirmed(600)
    async with returning(ann, gateway) as ann:
        await settled(ann, notes, report, gaps=1)


def restore(client: object, kept: dict[bytes, bytes]) -> None:
    for key, value in kept.items():
        client.delete(key)  # type: ignore[attr-defined]
        client.restore(key, 3_600_000, value)  # type: ignore[attr-defined]


async def test_33_a_lagging_replica_is_promoted(
    redis: SavingRedis, gateway: GatewayProcess, notes: Notes, report: Report, tmp_path: Path
) -> None:
    folder = tmp_path / "replica"
    folder.mkdir()
    replica = SavingRedis(folder)
    replica.start()
    try:
        replica.client.replicaof("127.0.0.1", str(redis.port))
        async with Watcher(notes.user, gateway) as ann:
            await notes.confirmed(300)
            await eventually(
                lambda: replica.client.hget(f"eb:{{user:{notes.user}}}:state", "offset") == b"300", "the replica"
            )
            replica.client.replicaof("127.0.0.1", "1")  # its link is cut
            await notes.confirmed(150)
            await has_all(ann, notes)
        redis.kill()
        replica.client.replicaof("NO", "ONE")
        await back(redis, lambda: replica.client.config_set("port", str(redis.port)), notes)
        await notes.confirmed(300)
        async with returning(ann, gateway) as ann:
            await settled(ann, notes, report, gaps=1)
    finally:
        replica.kill()
        redis.start()


@pytest.mark.parametrize("appendonly", ["no", "yes"], ids=["rdb", "aof"])
async def test_34_a_clean_restart_causes_no_gap(
    redis: SavingRedis, gateway: GatewayProcess, notes: Notes, report: Report, appendonly: str
) -> None:
    if appendonly == "yes":
        redis.client.config_set("appendonly", "yes")
        await eventually(lambda: redis.client.info("persistence")["aof_rewrite_in_progress"] == 0, "the first file")
        redis.appendonly = "yes"
    async with Watcher("bob", gateway) as bob, Watcher(notes.user, gateway) as ann:
        await notes.confirmed(200)
        await has_all(ann, notes)
        redis.end()
        notes.emit(100)
        await back(redis, redis.start, notes)
        await settled(ann, notes, report, gaps=0)
    await notes.confirmed(100)
    redis.end()
    await back(redis, redis.start, notes)
    async with returning(ann, gateway) as ann:
        await settled(ann, notes, report, gaps=0)
    assert bob.page.gaps == 0


async def test_35_flushed_while_no_page_is_connected(
    redis: SavingRedis, gateway: GatewayProcess, notes: Notes, report: Report
) -> None:
    async with Watcher(notes.user, gateway) as ann:
        await notes.confirmed(200)
        await has_all(ann, notes)
    await notes.confirmed(50)
    redis.client.flushall()
    await notes.confirmed(500)
    async with returning(ann, gateway) as ann:
        await settled(ann, notes, report, gaps=1)
