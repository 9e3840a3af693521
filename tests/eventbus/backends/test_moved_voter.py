"""A gateway whose reader meets other data: it leaves the former server before it states what it knows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eventbus import BusSettings, Event, Unavailable
from eventbus.backends.ports import Published, Write
from eventbus.backends.redis.publisher import RedisPublisher
from eventbus.backends.redis.reader import RedisReader
from eventbus.backends.redis.subscriber import RedisSubscriber
from eventbus.events.encoder import EmissionBuilder
from eventbus.protocol.cursor import Position
from tests.conftest import wait_until
from tests.eventbus.backends.heard import Heard
from tests.servers.forwarder import Forwarder
from tests.servers.sentinel import MonitoredServer

CHANNEL = "user:42"


class Sent(Event, name="moved.sent"):
    n: int


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


def published(settings: BusSettings) -> Position:
    publisher = RedisPublisher(settings)
    emission = EmissionBuilder(settings).build(f"{CHANNEL}:operation:1", Sent(n=1))
    (answer,) = publisher.publish([Write(CHANNEL, [emission])])
    assert isinstance(answer, Published)
    publisher.close()
    return answer.position


async def until(condition: Callable[[], object], what: str) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def renewed(reader: RedisReader, calls: list[str]) -> bool:
    """Renew until the verdict is known, as a gateway does. Return whether the timeline is another one.

    ``calls`` are those since the last attempt that failed, because the connection was lost.
    """
    async with asyncio.timeout(20):
        while True:
            try:
                return await reader.renew()
            except Unavailable:
                if "moved" not in calls:
                    calls.clear()
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("demoted", [False, True], ids=["both_are_masters", "demoted"])
async def test_the_subscriber_leaves_before_the_statement(
    pair: tuple[MonitoredServer, MonitoredServer], demoted: bool
) -> None:
    old, new = pair
    with Forwarder(old.port) as name:
        settings = BusSettings(redis_url=f"redis://127.0.0.1:{name.port}/0", retry_max=0.2)
        last, calls = published(settings), list[str]()
        reader, subscriber, listener = RedisReader(settings), RedisSubscriber(settings), Heard()

        def heard() -> tuple[str, Position]:
            calls.append("heard")
            return CHANNEL, last

        def moved(reason: str) -> None:
            calls.append("moved")
            subscriber.reconnect(reason)

        await subscriber.start(listener)
        await until(lambda: listener.restorations == 1, "the subscription")
        reader.be_voter(heard, moved)
        await renewed(reader, calls)
        old.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await renewed(reader, calls)
        assert "moved" not in calls, "the same server"

        end = old.client.info("replication")["master_repl_offset"]
        await until(lambda: new.client.info("replication")["slave_repl_offset"] >= end, "the replica to have all")
        new.client.replicaof("NO", "ONE")
        if demoted:
            old.client.replicaof("127.0.0.1", new.port)
        name.target = new.port
        calls.clear()
        # Only the reader's connection ends. The subscriber's stays at the old server, which publishes on.
        old.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert await renewed(reader, calls)
        assert calls[0] == "moved"
        assert "heard" in calls
        await until(lambda: not old.client.client_list(_type="pubsub"), "the subscriber to leave the old server")
        await until(lambda: listener.restorations == 2, "the subscription at the new one")
        assert len(new.client.client_list(_type="pubsub")) == 1
        await reader.aclose()
        await subscriber.aclose()
