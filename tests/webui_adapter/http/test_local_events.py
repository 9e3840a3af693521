"""Events of the gateway's own process while Redis is down: delivered immediately, and in their place after it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI

from eventbus import Bus, BusSettings, configure
from eventbus.process_bus import default_bus
from tests.conftest import RedisServer, free_port, wait_until
from tests.webui_adapter.events import Note, Progress
from tests.webui_adapter.gateways import SECRET, page
from tests.webui_adapter.health.test_redis_down import KeepingRedis
from tests.webui_adapter.parts import USER, join, messages_of, new_session, settings
from tests.webui_adapter.transports.curl import curl, settled
from webui_adapter import GatewaySettings, Principal, gateway_router
from webui_adapter.gateway.build import connect_gateway
from webui_adapter.gateway.gateway import Gateway
from webui_adapter.http.local_events import LocalEvents
from webui_adapter.protocol.commands import Subscribe


class Site:
    """An application that emits, and has the gateway's routes; served by uvicorn in a thread."""

    prefix = "/eventbus"

    def __init__(self, bus_settings: BusSettings, bus: Bus | None, **options: str) -> None:
        self.port = free_port()
        self.http = f"http://127.0.0.1:{self.port}"
        self.ws = f"ws://127.0.0.1:{self.port}{self.prefix}/ws"
        self.sse = f"{self.http}{self.prefix}/sse"
        own = GatewaySettings(
            jwt_secret=SECRET, probe_interval=0.2, probe_timeout=1.0, drain_spread=0, shutdown_grace=0
        )

        def rights(_: Principal, collection: str) -> bool:
            return collection == "open"

        app = FastAPI()
        app.include_router(gateway_router(own, bus_settings, authoriser=rights, bus=bus))
        config = uvicorn.Config(app, port=self.port, log_config=None, timeout_graceful_shutdown=2, **options)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)

    def start(self) -> None:
        self._thread.start()
        wait_until(lambda: self._server.started, "the application to start")

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)


@pytest.fixture
def keeping(tmp_path: Path) -> Iterator[RedisServer]:
    server = KeepingRedis(tmp_path)
    server.start()
    yield server
    server.kill()


WAYS = {
    "any server": {},
    "ours": {
        "ws": "webui_adapter.uvicorn:WebSocketProtocol",
        "http": "webui_adapter.uvicorn:HttpProtocol",
    },
}


@pytest.fixture(autouse=True)
def _the_process_keeps_its_bus() -> Iterator[None]:
    """Undo the configuration after each test."""
    former = default_bus()
    yield
    configure(bus=former)


@pytest.mark.parametrize("way", WAYS)
async def test_events_emitted_while_redis_is_down_are_shown_immediately_and_count_once(
    keeping: RedisServer, user: str, way: str
) -> None:
    bus_settings = BusSettings(redis_url=keeping.url, socket_timeout=0.7, retry_max=0.3)
    # The process's own bus, as an application has it; or one that it names.
    bus = configure(bus_settings) if way == "ours" else Bus(bus_settings)
    site = Site(bus_settings, None if way == "ours" else bus, **WAYS[way])
    site.start()
    try:
        with curl(site, user) as stream:
            async with page(site, user) as client, page(site, f"{user}-b", "", "collection:open:*") as other:
                stream.until(settled(user), "the histories")
                bus.emit(user, "op", Note(n=0))
                await client.until(lambda p: p.got("gw.note") == [0])
                keeping.kill()
                await client.until(lambda p: p.data_of("bus.degraded"), "the control event")
                bus.emit(user, "op", Note(n=1))
                wait_until(lambda: bus.outbox.redis_down, "the outbox to know it, too")
                for n in (2, 3):
                    bus.emit(user, "op", Note(n=n))
                bus.broadcast("open", Note(n=4))
                await client.until(lambda p: p.got("gw.note") == [0, 2, 3], "what was emitted meanwhile")
                await other.until(lambda p: p.got("gw.note") == [4], "the same of a collection")
                first = client.page.events[1]
                assert "offset" not in first
                assert (first["type"], first["topic"]) == ("gw.note", f"user:{user}:operation:op")
                stream.until(lambda c: len(c.got("gw.note")) == 3, "the same over SSE")
                assert ["id" in block for block in stream.blocks if block.get("event") == "gw.note"][1:] == [False] * 2
                async with page(site, user, wait=False) as late:
                    await late.until(lambda p: p.data_of("bus.degraded"), "bus.degraded on a new page")
                    bus.emit(user, "op", Note(n=5))
                    await late.until(lambda p: p.got("gw.note") == [5], "the event on a page that waits for Redis")
                keeping.start()
                await client.until(lambda p: p.data_of("bus.restored"), "the control event")
                await client.until(lambda p: p.positions[f"user:{user}"].offset == 5, "all of it in its place")
                assert sorted(client.page.got("gw.note")) == [0, 1, 2, 3, 5], "each once"
                assert client.page.data_of("bus.gap") == []
    finally:
        site.stop()
        bus.close()
    assert bus.outbox.observers == []


def test_a_bus_that_leads_elsewhere_is_not_listened_to(bus_settings: BusSettings) -> None:
    configure(bus_settings.model_copy(update={"key_prefix": "elsewhere"}))
    site = Site(bus_settings, None)
    site.start()
    try:
        assert default_bus().outbox.observers == []
    finally:
        site.stop()


# --- in one process, without sockets ----------------------------------------------------------------------------


@pytest.fixture
async def gateway(bus_settings: BusSettings) -> Gateway:
    return connect_gateway(settings(local_events=3, max_message_size=2048), bus_settings)


async def turn() -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_no_more_wait_than_the_setting_says_and_the_rest_is_counted(gateway: Gateway) -> None:
    session = new_session(gateway.hub)
    join(gateway.hub, session)
    bus = Bus(BusSettings(redis_url="memory://"))
    local = LocalEvents(gateway, asyncio.get_running_loop())

    def emit() -> None:
        for n in range(10):
            local.show(bus.emission(("42", "op", Progress(done=n)), None))

    thread = threading.Thread(target=emit)
    thread.start()
    thread.join()
    assert session.output.out == []
    written = session.output.out
    gateway.flush = lambda: None  # type: ignore[method-assign] # no session has a transport here
    await turn()
    assert len(written) == 3
    assert gateway.counters["drop.local_full"] == 7
    local.show(bus.emission(("42", "op", Note(n=1, pad="x" * 3000)), None))
    local.show(bus.emission(("other", "op", Note(n=1)), None))
    await turn()
    assert len(written) == 3, "neither what is too large nor what is another's"


async def test_who_is_slow_or_reads_another_topic_gets_none(gateway: Gateway) -> None:
    gateway.flush = lambda: None  # type: ignore[method-assign]
    slow, narrow = new_session(gateway.hub), new_session(gateway.hub)
    join(gateway.hub, slow)
    join(gateway.hub, narrow, f"{USER}:operation:9")
    slow.output.pause_writing()
    local = LocalEvents(gateway, asyncio.get_running_loop())
    bus = Bus(BusSettings(redis_url="memory://"))
    local.show(bus.emission(("42", "op", Note(n=1)), None))
    await turn()
    assert (slow.output.out, narrow.output.out) == ([], [])
    assert gateway.counters["drop.local_slow"] == 1
    local.show(bus.emission(("42", "9", Note(n=1)), None))
    await turn()
    assert len(narrow.output.out) == 1
    narrow.subscriptions.channels[USER].queued_commands += (Subscribe(f"{USER}:operation:later", None),)
    local.show(bus.emission(("42", "later", Note(n=1)), None))
    await turn()
    assert len(narrow.output.out) == 2, "what it has asked for is held up by Redis only"
    assert messages_of(slow) == []
