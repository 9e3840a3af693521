"""The load generator: what it counts, and that it notices what is missing, comes twice, or comes out of order."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from bench.contenders.contract import Launch
from bench.contenders.plain_fastapi import PLAIN_FASTAPI
from bench.load_generator import LoadGenerator, build, running_load, write_tokens

pytestmark = pytest.mark.skipif(
    shutil.which("make") is None or shutil.which("cc") is None, reason="it is compiled, by make and cc"
)

CONNECTIONS = 3


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    build()


def event(seq: int, *, of: int | None = None, late_s: float = 0.0, user: str | None = None) -> str:
    stream = {} if of is None else {"of": of}
    topic = "system:bench" if user is None else f"user:{user}:operation:bench"
    data = {**stream, "seq": seq, "at": time.time_ns() // 1000 - int(late_s * 1e6)}
    return json.dumps({"type": "bench.tick", "topic": topic, "data": data}, separators=(",", ":"))


class Server:
    """A server that greets, then sends the given messages to every connection."""

    def __init__(self) -> None:
        self._connections: list[ServerConnection] = []

    async def serve(self, connection: ServerConnection) -> None:
        await connection.send("ready")
        self._connections.append(connection)
        await connection.wait_closed()

    async def say(self, texts: Sequence[str]) -> None:
        for connection in self._connections:
            for text in texts:
                await connection.send(text)


@asynccontextmanager
async def opened(folder: Path, servers: int = 1) -> AsyncIterator[tuple[list[Server], LoadGenerator]]:
    write_tokens(folder / "tokens", CONNECTIONS)
    ours = [Server() for _ in range(servers)]
    listening = [await serve(server.serve, "127.0.0.1", 0) for server in ours]
    ports = [next(iter(server.sockets)).getsockname()[1] for server in listening]
    launches = [Launch(port, "", CONNECTIONS, folder / "progress") for port in ports]
    with running_load(replace(PLAIN_FASTAPI, path="/"), launches, CONNECTIONS) as load:
        await asyncio.to_thread(load.open)
        await asyncio.to_thread(load.start)
        yield ours, load
    for server in listening:
        server.close()


async def counted(load: LoadGenerator, events: int) -> dict[str, Any]:
    while (report := await asyncio.to_thread(load.report))["received"] < events:
        await asyncio.sleep(0.01)
    return report


async def test_all_events_in_order_are_all_well(tmp_path: Path) -> None:
    async with opened(tmp_path) as ([server], load):
        await server.say([event(seq) for seq in range(5)])
        report = await counted(load, 5 * CONNECTIONS)
    assert (report["events"], report["missing"], report["repeated"]) == (15, 0, 0)


async def test_what_is_missing_or_comes_twice_is_counted_on_each_connection(tmp_path: Path) -> None:
    async with opened(tmp_path) as ([server], load):
        await server.say([event(seq) for seq in (0, 1, 4, 4)])
        report = await counted(load, 4 * CONNECTIONS)
    assert (report["missing"], report["repeated"]) == (2 * CONNECTIONS, CONNECTIONS)


async def test_an_event_for_another_user_is_counted(tmp_path: Path) -> None:
    async with opened(tmp_path) as ([server], load):
        await server.say([event(0), event(1, user="u00001"), event(2, user="u0000")])
        report = await counted(load, 3 * CONNECTIONS)
    assert (report["missing"], report["strays"]) == (0, CONNECTIONS - 1 + CONNECTIONS)


async def test_a_mark_forgets_no_fault(tmp_path: Path) -> None:
    async with opened(tmp_path) as ([server], load):
        await server.say([event(seq) for seq in (0, 2, 2)])
        await counted(load, 3 * CONNECTIONS)
        await asyncio.to_thread(load.mark)
        report = await asyncio.to_thread(load.report)
        await asyncio.to_thread(load.start)
        anew = await asyncio.to_thread(load.report)
    assert (report["events"], report["missing"], report["repeated"]) == (0, CONNECTIONS, CONNECTIONS)
    assert (anew["missing"], anew["repeated"]) == (0, 0)


async def test_each_stream_has_a_separate_order(tmp_path: Path) -> None:
    async with opened(tmp_path) as ([server], load):
        await server.say([event(0, of=0), event(0, of=1), event(1, of=0), event(2, of=1)])
        report = await counted(load, 4 * CONNECTIONS)
    assert (report["missing"], report["repeated"]) == (CONNECTIONS, 0)


async def test_latency_counts_from_when_the_event_was_due(tmp_path: Path) -> None:
    async with opened(tmp_path) as ([server], load):
        await server.say([event(0, late_s=5.0)])
        report = await counted(load, CONNECTIONS)
    assert report["latency_us"]["p50"] >= 4_900_000


async def test_connections_are_dealt_out_over_several_servers(tmp_path: Path) -> None:
    async with opened(tmp_path, servers=2) as ([one, other], load):
        await one.say([event(0)])
        await other.say([event(0), event(1)])
        report = await counted(load, 2 + 2)
    assert report["events"] == 2 * 1 + 1 * 2
