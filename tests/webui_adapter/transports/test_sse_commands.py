"""Commands for the session of an event stream, sent by POST."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx

from eventbus import Bus
from tests.webui_adapter.events import Note
from tests.webui_adapter.gateways import GatewayProcess, page, token
from tests.webui_adapter.page import Page
from tests.webui_adapter.transports.curl import blocks

Publish = Any


class Stream:
    """A stream read by httpx, and the way to post commands for it."""

    def __init__(self, gateway: GatewayProcess, client: httpx.AsyncClient, response: httpx.Response, user: str) -> None:
        self._gateway = gateway
        self._client = client
        self._bytes = response.aiter_text()
        self._text = ""
        self._heard = 0
        self.page = Page()
        self.user = user

    async def until(self, condition: Callable[[Page], object], what: str) -> None:
        async with asyncio.timeout(10):
            while not condition(self.page):
                self._text += await anext(self._bytes)
                found = blocks(self._text)
                for block in found[self._heard :]:
                    if "data" in block:
                        self.page.receive(block["data"])
                self._heard = len(found)

    async def post(self, command: object, *, user: str = "", session: str = "", **headers: str) -> httpx.Response:
        session = session or self.page.data_of("bus.hello")[0]["session"]
        content = command if isinstance(command, bytes) else json.dumps(command).encode()
        return await self._client.post(
            f"{self._gateway.http}{self._gateway.prefix}/sessions/{session}/commands",
            content=content,
            headers={"Authorization": f"Bearer {token(user or self.user)}", **headers},
        )


@contextlib.asynccontextmanager
async def streaming(gateway: GatewayProcess, user: str, **claims: Any) -> AsyncIterator[Stream]:
    headers = {"Authorization": f"Bearer {token(user, **claims)}"}
    async with (
        httpx.AsyncClient(timeout=10) as client,
        client.stream("GET", gateway.sse, headers=headers) as response,
    ):
        assert response.status_code == 200
        stream = Stream(gateway, client, response, user)
        await stream.until(lambda p: len(p.data_of("bus.position")) == 2, "the histories")
        yield stream


async def test_commands_by_post(gateway: GatewayProcess, user: str, collection: str, bus: Bus) -> None:
    async with streaming(gateway, user, member_of=[collection]) as stream:
        response = await stream.post({"do": "subscribe", "topic": f"collection:{collection}:*", "ref": "a"})
        assert (response.status_code, response.content) == (202, b"")
        await stream.until(lambda p: any(d.get("ref") == "a" for d in p.data_of("bus.subscribed")), "the answer")
        bus.broadcast(collection, Note(n=1))
        bus.flush(10)
        await stream.until(lambda p: p.got("gw.note") == [1], "the event")
        assert (
            await stream.post({"do": "unsubscribe", "topic": f"collection:{collection}:*", "ref": 2})
        ).status_code == 202
        await stream.until(lambda p: {"ref": 2} in p.data_of("bus.ok"), "the answer")
        assert (await stream.post({"do": "auth", "token": token(user), "ref": 3})).status_code == 202
        await stream.until(lambda p: any(d.get("ref") == 3 for d in p.data_of("bus.ok")), "the answer")


async def test_commands_that_are_refused_immediately(gateway: GatewayProcess, user: str) -> None:
    async with streaming(gateway, user) as stream:
        response = await stream.post({"do": "dance", "ref": 7})
        assert response.status_code == 400
        assert response.json()["type"] == "bus.error"
        assert response.json()["data"]["code"] == "bad_command"
        assert response.json()["data"]["ref"] == 7
        response = await stream.post(b'{"do":"dance","ref":"\\ud800"}')
        assert (response.status_code, response.json()["data"]["ref"]) == (400, "\ud800")
        response = await stream.post(b"x" * 70_000)
        assert response.status_code == 413
        assert response.json()["data"]["code"] == "too_large"
        response = await stream.post({"do": "ping"}, session="no-such-session")
        assert (response.status_code, response.json()["type"]) == (404, "bus.error")
        assert response.json()["data"]["code"] == "not_found"
        assert response.headers["Connection"] == "close", "the next connection may reach another process"
        assert (await stream.post({"do": "ping"}, user="somebody-else")).status_code == 404, "another user's session"
        assert (await stream.post({"do": "ping"}, Authorization="Bearer nonsense")).status_code == 401
        assert (await stream.post({"do": "ping"}, Origin="https://evil.example")).status_code == 403
        assert (await stream.post({"do": "ping", "ref": 1})).status_code == 202
        await stream.until(lambda p: {"ref": 1} in p.data_of("bus.ok"), "the answer")


async def test_commands_beyond_the_rate(brisk: GatewayProcess, user: str) -> None:
    async with streaming(brisk, user) as stream:
        statuses = []
        while 429 not in statuses:
            assert len(statuses) < 200
            responses = await asyncio.gather(*(stream.post({"do": "ping", "ref": i}) for i in range(30)))
            statuses += [response.status_code for response in responses]
        refused = next(response.json()["data"] for response in responses if response.status_code == 429)
        assert (refused["code"], refused["limit"]) == ("rate_limited", 20)
        assert refused["retry_ms"] > 0
        assert "ref" in refused
        assert set(statuses) == {202, 429}


async def test_a_session_of_a_websocket_takes_posts_of_its_user_too(gateway: GatewayProcess, user: str) -> None:
    async with page(gateway, user) as client, httpx.AsyncClient() as http:
        session = client.page.data_of("bus.hello")[0]["session"]
        url = f"{gateway.http}/eventbus/sessions/{session}/commands"
        response = await http.post(
            url, json={"do": "ping", "ref": 5}, headers={"Authorization": f"Bearer {token(user)}"}
        )
        assert response.status_code == 202
        await client.until(lambda p: {"ref": 5} in p.data_of("bus.ok"))


async def test_a_post_that_breaks_off_is_nothing(gateway: GatewayProcess, user: str) -> None:
    async with streaming(gateway, user) as stream:
        session = stream.page.data_of("bus.hello")[0]["session"]
        for _ in range(5):
            peer = socket.create_connection(("127.0.0.1", gateway.port))
            peer.sendall(
                f"POST /eventbus/sessions/{session}/commands HTTP/1.1\r\nHost: x\r\n"
                f"Authorization: Bearer {token(user)}\r\n"
                'Content-Length: 100\r\n\r\n{"do":'.encode()
            )
            peer.close()
        assert (await stream.post({"do": "ping", "ref": 1})).status_code == 202
