"""The mounts of the compatibility page: a prefix, a root path, and FastAPI's ``TestClient``."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from eventbus.backends.memory.adapters import MemoryBroker
from tests.webui_adapter.gateways import SECRET, page
from tests.webui_adapter.transports.test_server_lifetime import APP, site
from webui_adapter import GatewaySettings, gateway_router
from webui_adapter.testing import make_token


@pytest.mark.parametrize("prefix", ["", "/api"])
def test_the_test_client_of_fastapi_reads_a_page(prefix: str, user: str) -> None:
    app = FastAPI()
    app.include_router(gateway_router(GatewaySettings(jwt_secret=SECRET), broker=MemoryBroker()), prefix=prefix)
    with TestClient(app) as client:
        assert client.get(f"{prefix}/readyz").status_code == 200
        with client.websocket_connect(f"{prefix}/eventbus/ws") as socket:
            socket.send_json({"do": "auth", "token": make_token(user, SECRET)})
            assert socket.receive_json()["type"] == "bus.hello"


async def test_behind_a_root_path(tmp_path: Path, user: str) -> None:
    """A proxy cuts ``/site`` off, and uvicorn adds it to the path that the application sees."""
    with site(tmp_path, APP, "/eventbus", "--root-path", "/site") as own:
        async with page(own, user) as client:
            async with httpx.AsyncClient() as script:
                assert (await script.post(f"{own.http}/emit/{user}/7", timeout=10)).status_code == 200
            await client.until(lambda p: p.got("gw.note") == [7])
        ready = await asyncio.to_thread(httpx.get, f"{own.http}/readyz", timeout=10)
        assert ready.status_code == 200
