"""The router in an application that was there before: uvicorn's own WebSockets, an in-process broker, a prefix."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, WebSocket

from eventbus import Bus
from eventbus.backends.memory.adapters import MemoryBroker
from tests.conftest import free_port, wait_until
from tests.webui_adapter.events import Alarm, Note, Progress
from tests.webui_adapter.gateway.test_operations import started
from tests.webui_adapter.gateways import SECRET, eventually, page, token
from tests.webui_adapter.transports.curl import curl, settled
from webui_adapter import GatewaySettings, Principal, gateway_router

# One of the ways tried here is uvicorn's oldest.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Mounted:
    """Another application, served by uvicorn in a thread."""

    def __init__(self, **options: Any) -> None:
        self.broker = MemoryBroker()
        self.bus = Bus(broker=self.broker)
        self.prefix = "/site/bus"
        settings = GatewaySettings(
            jwt_secret=SECRET,
            prefix=self.prefix,
            max_connections_per_user=2,
            on_too_many="replace",
            backlog_events=500,
            write_high=4096,
            drain_spread=0.3,
            shutdown_grace=0.5,
        )
        app = FastAPI()

        @app.get("/")
        async def home() -> dict[str, object]:
            pulling = [task for task in asyncio.all_tasks() if "_pull" in repr(task.get_coro())]
            return {"own": "page", "pulling": len(pulling)}

        @app.websocket("/echo")
        async def echo(websocket: WebSocket) -> None:
            await websocket.accept()
            await websocket.send_text(await websocket.receive_text())
            await websocket.close(4999)

        def rights(principal: Principal, collection: str) -> bool:
            return collection == f"of-{principal.user}"

        app.include_router(gateway_router(settings, authoriser=rights, broker=self.broker, probes=False))
        self.port = free_port()
        self.http = f"http://127.0.0.1:{self.port}"
        self.ws = f"ws://127.0.0.1:{self.port}{self.prefix}/ws"
        self.sse = f"{self.http}{self.prefix}/sse"
        config = uvicorn.Config(app, port=self.port, log_config=None, timeout_graceful_shutdown=4, **options)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)

    def start(self) -> None:
        self._thread.start()
        wait_until(lambda: self._server.started, "the application to start")

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive(), "the application does not end"
        self.bus.close()


WAYS = {
    "uvicorn's own": {},
    "websockets": {"ws": "websockets"},
    "ours": {
        "ws": "webui_adapter.uvicorn:WebSocketProtocol",
        "http": "webui_adapter.uvicorn:HttpProtocol",
    },
}


@contextlib.contextmanager
def mounted(caplog_handler: Any = None, **options: Any) -> Iterator[Mounted]:
    own = Mounted(**options)
    own.start()
    try:
        yield own
    finally:
        own.stop()


@pytest.fixture(scope="module", params=WAYS)
def site(request: pytest.FixtureRequest) -> Iterator[Mounted]:
    with mounted(**WAYS[request.param]) as own:
        yield own


@pytest.fixture(autouse=True)
def _no_exception_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.INFO)
    yield
    gc.collect()  # a task that was never ended is destroyed here, and logs it
    signs = ("Exception in ASGI", "was destroyed", "never retrieved")
    bad = [r for r in caplog.records if r.exc_info or any(sign in r.getMessage() for sign in signs)]
    assert not bad, [record.getMessage() for record in bad]


async def test_events_of_the_same_process(site: Mounted, user: str) -> None:
    site.bus.emit(user, "op", Progress(done=1))
    site.bus.flush(5)
    async with page(site, user) as client:
        assert client.page.got("gw.progress", "done") == [1]
        for n in range(50):
            site.bus.emit(user, "op", Note(n=n))
        await client.until(lambda p: p.got("gw.note") == list(range(50)))
        model = client.page
    site.bus.emit(user, "op", Note(n=50))
    site.bus.flush(5)
    async with page(site, user, model) as client:
        assert client.page.got("gw.note") == list(range(51))


async def test_the_applications_own_routes_are_undisturbed(site: Mounted) -> None:
    from websockets.asyncio.client import connect  # noqa: PLC0415 - read next to its use
    from websockets.exceptions import ConnectionClosed  # noqa: PLC0415

    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{site.http}/")).json()["own"] == "page"
        assert (await client.get(f"{site.http}/metrics")).status_code == 404
        assert (await client.get(f"{site.http}/eventbus/ws")).status_code == 404
    async with connect(f"ws://127.0.0.1:{site.port}/echo") as connection:
        await connection.send("hello")
        assert await connection.recv() == "hello"
        with pytest.raises(ConnectionClosed) as closed:
            await connection.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4999


async def test_rights_are_the_applications(site: Mounted, user: str) -> None:
    async with page(site, user) as client:
        assert (await client.request(do="subscribe", topic=f"collection:of-{user}:*"))["type"] == "bus.subscribed"
        assert (await client.request(do="subscribe", topic="collection:of-x:*"))["data"]["code"] == "forbidden"
        site.bus.broadcast(f"of-{user}", Note(n=1))
        await client.until(lambda p: p.got("gw.note") == [1])


async def test_operations_of_the_same_process(site: Mounted, user: str) -> None:
    started(site.bus, user, "first", runs=False)
    started(site.bus, user, "second")
    headers = {"Authorization": f"Bearer {token(user)}"}
    url = f"{site.http}{site.prefix}/operations"
    async with page(site, user) as client, httpx.AsyncClient(headers=headers) as script:
        found = (await client.request(do="operations"))["data"]["operations"]
        assert [(info["id"], info["label"]) for info in found] == [("second", "Index"), ("first", "Index")]
        assert (await script.get(url)).json()["operations"] == found
        assert (await script.get(f"{url}/second")).json()["operation"]["tasks"][0]["name"] == "shop.read"
        assert (await client.request(do="cancel", operation="first"))["data"]["operation"]["state"] == "cancelled"
        await client.until(lambda p: "operation.cancelled" in [event["type"] for event in p.events])
        assert (await script.post(f"{url}/second/cancel")).json()["operation"]["state"] == "cancelling"
        assert (await script.post(f"{url}/never/cancel")).status_code == 404


async def test_pages_that_have_gone_leave_no_task(site: Mounted, user: str) -> None:
    for _ in range(3):
        async with page(site, user):
            pass
    async with httpx.AsyncClient() as client, asyncio.timeout(5):
        while (await client.get(f"{site.http}/")).json()["pulling"]:
            await asyncio.sleep(0.01)


async def test_the_oldest_of_too_many_goes(site: Mounted, user: str) -> None:
    async with page(site, user) as first, page(site, user) as second, page(site, user) as third:
        assert await first.closed() == 4501
        assert (await second.request(do="ping"))["type"] == "bus.ok"
        assert (await third.request(do="ping"))["type"] == "bus.ok"


async def test_a_token_that_ends(site: Mounted, user: str) -> None:
    async with page(site, user, seconds=2, wait=False) as client:
        assert await client.closed() == 4100


async def test_the_gateway_is_not_degraded(site: Mounted, user: str) -> None:
    async with page(site, user) as client:
        await client.request(do="ping")
        said = client.page.data_of("bus.degraded")
    assert not said


async def test_sse_and_posts_under_the_prefix(site: Mounted, user: str) -> None:
    headers = {"Authorization": f"Bearer {token(user)}"}
    async with (
        httpx.AsyncClient(timeout=10, headers=headers) as client,
        client.stream("GET", f"{site.http}{site.prefix}/sse") as stream,
    ):
        text = ""
        lines = stream.aiter_text()
        while text.count("event: bus.position") < 2:
            text += await anext(lines)
        session = text.partition('"session":"')[2].partition('"')[0]
        response = await client.post(
            f"{site.http}{site.prefix}/sessions/{session}/commands", json={"do": "ping", "ref": 9}
        )
        assert response.status_code == 202
        site.bus.emit(user, "op", Note(n=1))
        while "gw.note" not in text or '"ref":9' not in text:
            text += await anext(lines)


async def test_a_page_that_does_not_keep_up(site: Mounted, user: str) -> None:
    """Over every transport: each log event once, urgent events first, or a close so that the page reconnects."""
    from websockets.exceptions import ConnectionClosed  # noqa: PLC0415 - read next to its use

    async with page(site, user) as client:
        model = client.page
        for n in range(200):
            site.bus.emit(user, f"op{n % 3}", Note(n=n, pad="x" * 5000))
            site.bus.emit(user, f"op{n % 3}", Progress(done=n, part=f"op{n % 3}"))
        await asyncio.to_thread(site.bus.flush, 10)
        site.bus.emit(user, "urgent", Alarm(n=1))
        with contextlib.suppress(ConnectionClosed):
            await client.until(lambda p: p.got("gw.alarm") == [1])
            await client.until(lambda p: len(p.got("gw.note")) == 200)
    async with page(site, user, model) as back:
        await back.request(do="ping")
        assert sorted(model.got("gw.note")) == list(range(200))


async def test_a_server_that_is_not_known_is_reported_with_its_first_connections(
    user: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It runs in a thread, so the gateway cannot see its options."""
    for name, number in (("uvicorn's own", 1), ("ours", 0)):
        caplog.clear()
        with mounted(**WAYS[name]) as own:
            for _ in range(2):
                async with page(own, user):
                    pass
                with curl(own, user) as stream:
                    stream.until(settled(user), "the histories")
        said = [record.getMessage() for record in caplog.records]
        for option in ("--ws webui_adapter.uvicorn:WebSocketProtocol", "--http webui_adapter.uvicorn:HttpProtocol"):
            assert len([line for line in said if line.endswith(option)]) == number, said


async def test_an_application_that_ends_lets_its_streams_go_where_it_serves_them_our_way(user: str) -> None:
    """No WebSocket is open, through which the gateway would notice it too."""
    own = Mounted(**WAYS["ours"])
    own.start()
    with curl(own, user) as stream:
        stream.until(settled(user), "the histories")
        await asyncio.to_thread(own.stop)
        await eventually(stream.ended, "the end of the stream")
        assert stream.got("bus.drain")
        assert stream.got("bus.close")[0]["data"]["code"] == 4000


async def test_an_application_that_ends_lets_its_pages_go(user: str) -> None:
    """Each way of serving: pages hear why, and the server ends, SSE included where it is asked to."""
    for options in WAYS.values():
        own = Mounted(**options)
        own.start()
        async with page(own, user) as client:
            stopping = asyncio.create_task(asyncio.to_thread(own.stop))
            code = await client.closed()
            assert code in (4000, 1012, 1006, 1001, 1000, 1005)
            if options == WAYS["ours"]:
                assert code == 4000
                assert client.page.data_of("bus.drain")
            await stopping
