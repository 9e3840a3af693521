"""A mounted gateway starts and ends with its server, without any option of uvicorn and in a mounted application."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import free_port, wait_until
from tests.webui_adapter.gateways import page
from tests.webui_adapter.transports.curl import curl, settled


class Site:
    """The application of ``site_app`` under a server."""

    def __init__(self, folder: Path, app: str, prefix: str, *options: str, server: tuple[str, ...]) -> None:
        self.port, self.prefix = free_port(), prefix
        self.http = f"http://127.0.0.1:{self.port}"
        self.ws = f"ws://127.0.0.1:{self.port}{prefix}/ws"
        self.sse = f"{self.http}{prefix}/sse"
        self.log = folder / "site.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *server, "--port", str(self.port), *options, app],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def answers(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(self.http, timeout=5).status_code == 404
        return False


@contextlib.contextmanager
def site(folder: Path, app: str, prefix: str, *options: str, server: tuple[str, ...] = ("uvicorn",)) -> Iterator[Site]:
    own = Site(folder, app, prefix, *options, server=server)
    try:
        wait_until(own.answers, "the site to answer", 60)
        yield own
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(own.process.pid, signal.SIGKILL)  # its workers too
        own.process.wait()


APP = "tests.webui_adapter.transports.site_app:app"
OUTER = "tests.webui_adapter.transports.site_app:outer"


@pytest.mark.parametrize("options", [(), ("--ws", "webui_adapter.uvicorn:WebSocketProtocol")], ids=["plain", "ws"])
def test_sigterm_ends_a_server_with_an_open_stream(tmp_path: Path, user: str, options: tuple[str, ...]) -> None:
    with site(tmp_path, APP, "/eventbus", *options) as own, curl(own, user) as stream:
        stream.until(settled(user), "the histories")
        own.process.send_signal(signal.SIGTERM)
        assert own.process.wait(15) in (0, -signal.SIGTERM), own.log.read_text()
        wait_until(stream.ended, "the end of the stream")
        assert stream.got("bus.drain"), "the page learns that it should reconnect"
        assert stream.got("bus.close")[0]["data"]["code"] == 4000


@pytest.mark.parametrize("options", [("--loop", "asyncio"), ("--loop", "uvloop")])
def test_a_server_that_handles_signals_in_its_loop_ends_with_an_open_stream(
    tmp_path: Path, user: str, options: tuple[str, ...]
) -> None:
    """granian waits until all responses have ended, however long, before it ends the application's lifespan."""
    server = ("granian", "--interface", "asgi")
    with site(tmp_path, APP, "/eventbus", *options, server=server) as own, curl(own, user) as stream:
        stream.until(settled(user), "the histories")
        own.process.send_signal(signal.SIGTERM)
        assert own.process.wait(60) == 0, own.log.read_text()
        wait_until(stream.ended, "the end of the stream")
        assert stream.got("bus.drain"), "the page learns that it should reconnect"
        assert stream.got("bus.close")[0]["data"]["code"] == 4000


def test_reload_serves_new_code_while_a_stream_is_open(tmp_path: Path, user: str) -> None:
    module = tmp_path / "reloaded.py"
    text = "from tests.webui_adapter.transports.site_app import app\n@app.get('/version')\ndef version(): return "
    module.write_text(text + "1")
    options = ("--reload", "--reload-dir", str(tmp_path), "--app-dir", str(tmp_path))
    with site(tmp_path, "reloaded:app", "/eventbus", *options) as own:
        assert httpx.get(f"{own.http}/version", timeout=5).json() == 1
        with curl(own, user) as stream:
            stream.until(settled(user), "the histories")
            module.write_text(text + "2")
            wait_until(stream.ended, "the end of the stream", 10)
            assert stream.got("bus.close")[0]["data"]["code"] == 4000
            wait_until(lambda: _version(own) == 2, "the new code", 60)
        own.process.send_signal(signal.SIGTERM)
        own.process.wait(15)


def _version(own: Site) -> object:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{own.http}/version", timeout=5).json()
    return None


async def test_a_gateway_in_a_mounted_application_works(tmp_path: Path, user: str) -> None:
    """Starlette runs no lifespan of a mounted application."""
    with site(tmp_path, OUTER, "/sub/eventbus") as own:
        async with page(own, user) as client:
            async with httpx.AsyncClient() as script:
                assert (await script.post(f"{own.http}/sub/emit/{user}/7", timeout=10)).status_code == 200
            await client.until(lambda p: p.got("gw.note") == [7])
        ready = await asyncio.to_thread(httpx.get, f"{own.http}/sub/readyz", timeout=10)
        assert ready.status_code == 200
    assert "lifespan" in own.log.read_text(), "the log names the cause"
