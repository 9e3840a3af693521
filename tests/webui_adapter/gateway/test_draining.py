"""A drain: not ready, each page receives its moment, is served until then, and the rest is closed. Real SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from eventbus import Bus
from tests.webui_adapter.events import Note
from tests.webui_adapter.gateways import (
    Client,
    GatewayProcess,
    RawWebSocket,
    check_log,
    eventually,
    page,
    running,
    token,
)
from tests.webui_adapter.page import Page
from tests.webui_adapter.transports.curl import curl, settled


@pytest.fixture
def leaving(tmp_path: Path, redis_url: str, key_prefix: str) -> Iterator[GatewayProcess]:
    with running(tmp_path, redis_url, key_prefix, drain_spread=1.0, shutdown_grace=1.5, close_timeout=0.8) as process:
        yield process


async def test_sigterm_with_pages_of_every_kind(
    leaving: GatewayProcess, gateway: GatewayProcess, bus: Bus, user: str
) -> None:
    """Pages leave at their moment and miss nothing. A page that stays, a stream and a dead peer delay no other."""
    delays: list[int] = []
    async with contextlib.AsyncExitStack() as stack:
        good = [await stack.enter_async_context(page(leaving, f"{user}-{i}")) for i in range(6)]
        stays = await stack.enter_async_context(page(leaving, user))
        stream = stack.enter_context(curl(leaving, f"{user}-s"))
        stream.until(settled(f"{user}-s"), "the histories")
        dead = RawWebSocket(leaving, f"Authorization: Bearer {token(user)}\r\n")
        dead.head()
        waiting = await stack.enter_async_context(connect(leaving.ws))
        leaving.signal(signal.SIGTERM)

        async def go(client: Client, name: str) -> None:
            await client.until(lambda p: p.data_of("bus.drain"))
            after = client.page.data_of("bus.drain")[0]["after_ms"]
            assert 0 <= after <= 1000
            delays.append(after)
            await asyncio.sleep(after / 1000)
            await client.connection.close()
            bus.emit(name, "op", Note(n=1))
            bus.flush(10)
            async with page(gateway, name, client.page) as elsewhere:
                await elsewhere.until(lambda p: p.got("gw.note") == [1])

        going = [asyncio.create_task(go(client, f"{user}-{i}")) for i, client in enumerate(good)]
        await stays.until(lambda p: p.data_of("bus.drain"))
        response = leaving.get("/readyz")
        assert (response.status_code, response.json()) == (503, {"ready": False, "reason": "leaving"})
        assert leaving.get("/healthz").status_code == 200
        with pytest.raises(InvalidStatus) as refused:
            await connect(leaving.ws, additional_headers={"Authorization": f"Bearer {token(user)}"})
        assert refused.value.response.status_code == 503
        bearer = {"Authorization": f"Bearer {token(user)}"}
        assert leaving.get(f"{leaving.prefix}/sse", headers=bearer).status_code == 503
        bus.emit(user, "op", Note(n=7))
        bus.flush(10)
        await stays.until(lambda p: p.got("gw.note") == [7], "who has not gone yet is served")
        await asyncio.gather(*going)
        assert await stays.closed() == 4000
        assert await Client(waiting, Page()).closed() in (4000, 4101)
        await eventually(stream.ended, "the stream to end")
        assert stream.got("bus.drain")
        assert stream.got("bus.close")[0]["data"]["code"] == 4000
        leaving.wait(10)
        dead.close()
    check_log(leaving.log.read_text())
    assert len(set(delays)) > 1, "each at its own moment"


async def test_a_second_signal_ends_it_immediately(tmp_path: Path, redis_url: str, key_prefix: str, user: str) -> None:
    """The pages of this gateway have an hour to leave."""
    with running(tmp_path, redis_url, key_prefix, drain_spread=1.0, shutdown_grace=3600.0) as patient:
        async with page(patient, user) as client:
            with curl(patient, user) as stream:
                stream.until(settled(user), "the histories")
                patient.signal(signal.SIGINT)
                await client.until(lambda p: p.data_of("bus.drain"))
                patient.signal(signal.SIGTERM)
                await asyncio.to_thread(patient.wait, 30)
    text = patient.log.read_text()
    assert "Traceback" not in text
    check_log(text)
