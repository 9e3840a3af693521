"""Tokens over a WebSocket: accepted or refused, how they are sent, how long they last. Real sockets."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from eventbus import Bus
from tests.webui_adapter.events import Note
from tests.webui_adapter.gateways import ORIGIN, Client, GatewayProcess, RawWebSocket, eventually, page, token
from tests.webui_adapter.page import Page
from tests.webui_adapter.transports.curl import curl

HELLO = {"session", "user", "instance", "protocol", "ping_ms", "expires"}


async def greeted(gateway: GatewayProcess, user: str, **options: Any) -> Client:
    """Connect in some way and be greeted as this user."""
    async with connect(gateway.ws, compression=None, **options) as connection:
        client = Client(connection, Page())
        await client.until_settled(f"user:{user}", "system")
        hello = client.page.data_of("bus.hello")
        assert client.page.control_events[0]["type"] == "bus.hello", "first of all"
        assert len(hello) == 1
        assert hello[0].keys() == HELLO
        assert hello[0]["user"] == user
        return client


async def test_a_token_in_the_first_message(gateway: GatewayProcess, user: str) -> None:
    async with connect(gateway.ws, subprotocols=["eventbus.v1"]) as connection:
        assert connection.subprotocol == "eventbus.v1"
        client = Client(connection, Page())
        await client.send(
            do="auth", token=token(user, member_of=["7"]), topics=["collection:7:*"], cursor=f"user:{user}=0"
        )
        await client.until_settled(f"user:{user}", "system", "collection:7")
        hello = client.page.data_of("bus.hello")[0]
        assert hello["protocol"] == "eventbus.v1"
        assert hello["instance"] == "main"
        assert hello["ping_ms"] == 30_000
        assert abs(hello["expires"] / 1000 - time.time() - 600) < 5
        hows = {event["channel"]: event["how"] for event in client.page.data_of("bus.subscribed")}
        assert hows == {f"user:{user}": "resumed", "system": "snapshot", "collection:7": "snapshot"}


async def test_a_token_as_subprotocol(gateway: GatewayProcess, user: str) -> None:
    offered = ["eventbus.v1", f"access_token.{token(user)}"]
    client = await greeted(gateway, user, subprotocols=offered)
    assert client.connection.subprotocol == "eventbus.v1", "the token is not echoed"
    client = await greeted(gateway, user, subprotocols=offered[1:])
    assert client.connection.subprotocol == offered[1], "a browser insists on one that it offered"


async def test_a_token_as_header(gateway: GatewayProcess, user: str) -> None:
    client = await greeted(gateway, user, additional_headers={"Authorization": f"Bearer {token(user)}"})
    response = client.connection.response
    assert response is not None
    assert "Sec-WebSocket-Extensions" not in response.headers, "no compression, even if offered"


async def test_no_compression_even_where_it_is_offered(gateway: GatewayProcess, user: str) -> None:
    headers = {"Authorization": f"Bearer {token(user)}"}
    async with connect(gateway.ws, additional_headers=headers, compression="deflate") as connection:
        assert connection.response is not None
        assert "Sec-WebSocket-Extensions" not in connection.response.headers


async def test_a_token_as_cookie_needs_an_origin_of_the_list(gateway: GatewayProcess, user: str) -> None:
    cookie = {"Cookie": f"access_token={token(user)}"}
    await greeted(gateway, user, additional_headers=cookie, origin=ORIGIN)
    for origin in (None, "https://evil.example", f"http://127.0.0.1:{gateway.port}"):
        with pytest.raises(InvalidStatus) as refused:
            await connect(gateway.ws, additional_headers=cookie, origin=origin)
        assert refused.value.response.status_code == 403


async def test_a_foreign_origin_is_refused_whatever_the_token(
    gateway: GatewayProcess, brisk: GatewayProcess, user: str
) -> None:
    headers = {"Authorization": f"Bearer {token(user)}"}
    for origin in ("https://evil.example", "null", "http://[", f"{ORIGIN}:8443"):
        with pytest.raises(InvalidStatus) as refused:
            await connect(gateway.ws, additional_headers=headers, origin=origin)
        assert refused.value.response.status_code == 403
    with pytest.raises(InvalidStatus) as refused:
        await connect(brisk.ws, additional_headers=headers, origin=ORIGIN)
    assert refused.value.response.status_code == 403, "without a list it must be the own host"
    await greeted(brisk, user, additional_headers=headers, origin=f"http://127.0.0.1:{brisk.port}")


async def test_a_token_in_the_query_is_not_read(brisk: GatewayProcess, user: str) -> None:
    async with connect(f"{brisk.ws}?token={token(user)}&access_token={token(user)}") as connection:
        client = Client(connection, Page())
        assert await client.closed() == 4101
        assert client.page.control_events == []


async def test_a_bad_token_and_an_expired_token_have_different_codes(gateway: GatewayProcess, user: str) -> None:
    for bad, code in (
        (token(user, key="another secret, that is long as well"), 4500),
        ("x", 4500),
        (token(user, seconds=-5), 4100),
    ):
        async with connect(gateway.ws, additional_headers={"Authorization": f"Bearer {bad}"}) as connection:
            assert await Client(connection, Page()).closed() == code
        async with connect(gateway.ws) as connection:
            client = Client(connection, Page())
            await client.send(do="auth", token=bad)
            assert await client.closed() == code
            assert client.page.control_events == []


async def test_before_the_token_nothing_else_is_heard(gateway: GatewayProcess, user: str) -> None:
    async with connect(gateway.ws) as connection:
        client = Client(connection, Page())
        answer = await client.request(do="subscribe", topic="system:*")
        assert answer["data"]["code"] == "unauthenticated"
        await client.send(do="auth", token=token(user))
        await client.until_settled(f"user:{user}", "system")


async def test_a_session_lasts_as_long_as_its_token_or_the_fresh_one(gateway: GatewayProcess, user: str) -> None:
    """Three side by side: one that lets its token end, one that brings another in time, and a stream."""
    async with page(gateway, user, seconds=2) as lets_end, page(gateway, user, seconds=2) as renews:
        with curl(gateway, user, seconds=2) as stream:
            answer = await renews.request(do="auth", token=token(user, seconds=60))
            assert answer["type"] == "bus.ok"
            assert abs(answer["data"]["expires"] / 1000 - time.time() - 60) < 3
            end = lets_end.page.data_of("bus.hello")[0]["expires"] / 1000
            assert await lets_end.closed() == 4100
            assert time.time() >= end - 0.05, "not before the token ends"
            await eventually(stream.ended, "the end of the stream")
            assert stream.blocks[-1]["event"] == "bus.close"
            assert stream.got("bus.close")[0]["data"]["code"] == 4100
        assert (await renews.request(do="ping"))["type"] == "bus.ok"
        assert len(renews.page.data_of("bus.hello")) == 1, "the session is the same"


async def test_a_token_of_another_user_changes_nothing(gateway: GatewayProcess, user: str, publish: Any) -> None:
    async with page(gateway, user) as client:
        refused = await client.request(do="auth", token=token("somebody-else"))
        assert (refused["type"], refused["data"]["code"]) == ("bus.error", "forbidden")
        refused = await client.request(do="auth", token="nonsense")
        assert (refused["type"], refused["data"]["code"]) == ("bus.error", "unauthenticated")
        publish(user, Note(n=1))
        await client.until(lambda p: p.got("gw.note") == [1])


async def test_a_fresh_token_without_a_collection_ends_its_subscriptions(
    gateway: GatewayProcess, user: str, collection: str, bus: Bus
) -> None:
    kept = f"{collection}-kept"
    async with page(gateway, user, member_of=[collection, kept]) as client:
        for topic in (f"collection:{collection}:*", f"collection:{collection}:a", f"collection:{kept}:*"):
            assert (await client.request(do="subscribe", topic=topic))["type"] in ("bus.subscribed", "bus.ok")
        assert (await client.request(do="auth", token=token(user, member_of=[kept])))["type"] == "bus.ok"
        await client.until(lambda p: len(p.data_of("bus.error")) == 2)
        refused = {(error["code"], error["topic"]) for error in client.page.data_of("bus.error")}
        assert refused == {("forbidden", f"collection:{collection}:{rest}") for rest in ("*", "a")}
        bus.broadcast(collection, Note(n=1), topic="a", strict=True)
        bus.broadcast(kept, Note(n=2))
        await client.until(lambda p: p.got("gw.note") == [2])


@pytest.mark.parametrize(
    "query", ["?cursor=user:1=x", "?topic=user:*:x", f"?cursor={'x' * 4097}", "?topic=a&topic=user:1:*"]
)
async def test_a_query_that_cannot_be_read_is_a_bad_request(gateway: GatewayProcess, user: str, query: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(gateway.ws + query, additional_headers={"Authorization": f"Bearer {token(user)}"})
    assert refused.value.response.status_code == 400


async def test_a_path_that_is_not_ours(gateway: GatewayProcess) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws://127.0.0.1:{gateway.port}/eventbus/other")
    assert refused.value.response.status_code in (403, 404)
    assert gateway.get("/eventbus/other.js").status_code == 404
    assert gateway.get("/eventbus/..%2f..%2fpyproject.toml").status_code == 404


def test_the_client_is_served_as_what_it_is(gateway: GatewayProcess) -> None:
    from webui_adapter.http.client_files import _FOLDER  # noqa: PLC0415 - where a build lies, if there is one

    response = gateway.get("/eventbus/client.js")
    if (_FOLDER / "client.js").exists():
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/javascript")
    else:
        assert response.status_code == 404
        assert "make client" in response.text


def test_peers_that_go_in_the_middle_of_the_handshake_leave_nothing(gateway: GatewayProcess, user: str) -> None:
    """The log is looked at when the gateway ends: there must be no exception in it."""
    header = f"Authorization: Bearer {token(user)}\r\n"
    for i in range(30):
        raw = RawWebSocket(gateway, header if i % 3 else "Origin: https://evil.example\r\n")
        if i % 2:
            raw.socket.setsockopt(1, 13, b"\x01\0\0\0\0\0\0\0")  # SO_LINGER 0: a reset, not an end
        raw.close()
    from tests.conftest import wait_until  # noqa: PLC0415 - read next to its use

    wait_until(lambda: gateway.metrics()["eventbus_connections"] == 0, "all of them to be gone")


def test_a_request_that_is_no_websocket(gateway: GatewayProcess) -> None:
    response = httpx.get(gateway.ws.replace("ws://", "http://"))
    assert response.status_code in (404, 405, 426)
