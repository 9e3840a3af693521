"""Limits, pings, and peers that do not keep to the rules; on the gateway of short times."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.conftest import wait_until
from tests.webui_adapter.events import Note
from tests.webui_adapter.gateways import Client, GatewayProcess, RawWebSocket, page, token
from tests.webui_adapter.page import Page
from tests.webui_adapter.world import World

PING, PONG, TEXT, BINARY, CLOSE = 9, 10, 1, 2, 8


def bearer(user: str) -> str:
    return f"Authorization: Bearer {token(user)}\r\n"


def code_of(raw: RawWebSocket) -> int:
    """Read to the end: the close code, or 1006 where none came."""
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            opcode, payload = raw.frame()
            if opcode == CLOSE:
                return int.from_bytes(payload[:2], "big")
    return 1006


async def test_a_user_has_so_many_connections_and_the_next_is_rejected(brisk: GatewayProcess, user: str) -> None:
    async with page(brisk, user) as first, page(brisk, user):
        headers = {"Authorization": f"Bearer {token(user)}"}
        async with connect(brisk.ws, additional_headers=headers) as third:
            client = Client(third, Page())
            assert await client.closed() == 4003
            assert client.page.control_events == []
        async with page(brisk, f"{user}-b"):
            pass
        assert (await first.request(do="ping"))["type"] == "bus.ok"
    async with page(brisk, user):
        pass  # a place that was left is free


async def test_the_instance_has_so_many_connections(brisk: GatewayProcess, user: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for i in range(8):
            await stack.enter_async_context(page(brisk, f"{user}-{i}"))
        headers = {"Authorization": f"Bearer {token(user)}"}
        with pytest.raises(InvalidStatus) as refused:
            await connect(brisk.ws, additional_headers=headers)
        assert refused.value.response.status_code == 503
        assert refused.value.response.headers["Retry-After"] == "1"
        response = brisk.get(f"{brisk.prefix}/sse", headers=headers)
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    wait_until(lambda: brisk.metrics()["eventbus_connections"] == 0, "the places to be free")
    async with page(brisk, user):
        pass


async def test_so_many_topics(brisk: GatewayProcess, user: str) -> None:
    async with page(brisk, user) as client:
        for i in range(4):
            answer = await client.request(do="subscribe", topic=f"user:{user}:operation:{i}")
            assert answer["type"] == "bus.subscribed"
        answer = await client.request(do="subscribe", topic=f"user:{user}:operation:x")
        assert (answer["data"]["code"], answer["data"]["limit"]) == ("too_many_topics", 6)
        assert (await client.request(do="subscribe", topic=f"user:{user}:operation:1"))["type"] == "bus.subscribed"
        await client.request(do="unsubscribe", topic=f"user:{user}:operation:1")
        assert (await client.request(do="subscribe", topic=f"user:{user}:operation:x"))["type"] == "bus.subscribed"


async def test_commands_beyond_the_rate_are_refused_and_those_far_beyond_are_the_end(
    brisk: GatewayProcess, user: str
) -> None:
    async with page(brisk, user) as client:
        for i in range(30):
            await client.send(do="ping", ref=i)
        await client.until(lambda p: len(p.data_of("bus.ok")) + len(p.data_of("bus.error")) == 30, "an answer to each")
        refused = client.page.data_of("bus.error")
        assert refused
        assert {error["code"] for error in refused} == {"rate_limited"}
        assert all(error["limit"] == 20 and 0 < error["retry_ms"] <= 60 for error in refused)
        assert {data["ref"] for data in client.page.data_of("bus.ok")} | {error["ref"] for error in refused} == set(
            range(30)
        )
        await asyncio.sleep(refused[-1]["retry_ms"] / 1000)
        assert (await client.request(do="ping"))["type"] == "bus.ok"
        with contextlib.suppress(ConnectionClosed):
            for i in range(2000):
                await client.send(do="ping", ref=i)
        assert await client.closed() == 4502


async def test_malformed_commands_again_and_again_are_the_end(brisk: GatewayProcess, user: str) -> None:
    async with page(brisk, user) as client:
        for _ in range(5):
            await client.connection.send(b"\x00\xff")
        assert await client.closed() == 4502
        assert {error["code"] for error in client.page.data_of("bus.error")} == {"bad_json"}


async def test_a_binary_frame_is_a_command_like_any_other(brisk: GatewayProcess, user: str) -> None:
    async with page(brisk, user) as client:
        await client.connection.send(b'{"do":"ping","ref":1}')
        await client.until(lambda p: {"ref": 1} in p.data_of("bus.ok"))


async def test_an_oversized_command_ends_with_1009(brisk: GatewayProcess, user: str) -> None:
    async with page(brisk, user) as client:
        await client.connection.send(json.dumps({"do": "ping", "x": "y" * 5000}))
        assert await client.closed() == 1009


async def test_a_command_in_fragments_is_one_and_bounded_as_one(brisk: GatewayProcess, user: str) -> None:
    async with page(brisk, user) as client:
        await client.connection.send(['{"do":', '"ping",', '"ref":1}'])
        await client.until(lambda p: {"ref": 1} in p.data_of("bus.ok"))
        await client.connection.send(["x" * 1000 for _ in range(10)])
        assert await client.closed() == 1009


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x81\x05hello", 1002),  # not masked
        (b"\x83\x80\0\0\0\0", 1002),  # an opcode that is reserved
        (b"\xc1\x80\0\0\0\0", 1002),  # compressed, which was not agreed on
        (b"\x09\x80\0\0\0\0", 1002),  # a control frame in fragments
        (b"\x80\x80\0\0\0\0", 1002),  # the end of what never began
        (b"\x89\xfe\x00\x7e\0\0\0\0" + b"x" * 126, 1002),  # a control frame that is too long
        (b"\x81\x82\0\0\0\0\xff\xff", 1007),  # text that is not UTF-8
        (b"\x88\x81\0\0\0\0x", 1002),  # half a close code
        (b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", 1002),  # a length beyond all bounds
        (b"\x81\xff\0\0\0\0\x40\0\0\0\0\0\0\0", 1009),  # a gigabyte is announced
    ],
)
def test_frames_that_break_the_rules(brisk: GatewayProcess, user: str, frame: bytes, code: int) -> None:
    raw = RawWebSocket(brisk, bearer(user))
    assert raw.head().startswith("HTTP/1.1 101")
    raw.socket.sendall(frame)
    assert code_of(raw) in {code, 1009 if code == 1002 and len(frame) == 14 else code}
    raw.close()


# --- pings -------------------------------------------------------------------------------------------------------


def test_the_server_pings_and_a_dead_peer_is_closed(brisk: GatewayProcess, user: str) -> None:
    raws = [RawWebSocket(brisk, bearer(f"{user}-{i}")) for i in range(4)]
    for raw in raws:
        raw.head()
    for raw in raws:
        while raw.frame()[0] != PING:
            pass
        assert code_of(raw) == 4002
        raw.close()


def test_first_pings_are_spread() -> None:
    async def offsets() -> list[float]:
        own = World(heartbeat_interval=30, max_connections_per_user=100)
        now = own.gateway.clock.now()
        lines = [own.connect() for _ in range(100)]
        await own.gateway.aclose()
        return [line.session.next_ping - now for line in lines]

    found = asyncio.run(offsets())
    assert min(found) < 6
    assert max(found) > 24
    assert all(0 <= offset <= 30.5 for offset in found)


def test_who_answers_stays(brisk: GatewayProcess, user: str) -> None:
    """Without an answer, a second ping never comes."""
    raw = RawWebSocket(brisk, bearer(user))
    raw.head()
    pings = 0
    while pings < 4:
        opcode, payload = raw.frame()
        assert opcode != CLOSE
        if opcode == PING:
            raw.send(PONG, payload)
            pings += 1
    raw.close()


def test_a_peer_that_pings_without_reading_costs_no_memory(brisk: GatewayProcess, user: str) -> None:
    raw = RawWebSocket(brisk, bearer(user), receive_buffer=4096)
    raw.head()
    before = brisk.memory()
    ping = b"\x89\xfd\0\0\0\0" + b"x" * 125
    raw.socket.settimeout(3)
    sent = 0
    with contextlib.suppress(OSError):
        while sent < 40_000_000:
            sent += raw.socket.send(ping * 500)
    assert brisk.memory() - before < 24_000_000
    raw.close()


# --- the close ---------------------------------------------------------------------------------------------------


def test_a_close_is_answered_and_nothing_comes_after_it(brisk: GatewayProcess, user: str, publish: Any) -> None:
    raw = RawWebSocket(brisk, bearer(user))
    raw.head()
    raw.frame()
    raw.send(CLOSE, (1000).to_bytes(2, "big"))
    publish(user, *(Note(n=i) for i in range(20)))
    frames = []
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            frames.append(raw.frame())
    closes = [i for i, (opcode, _) in enumerate(frames) if opcode == CLOSE]
    assert closes == [len(frames) - 1]
    assert frames[-1][1][:2] == (1000).to_bytes(2, "big")


def test_the_gateways_close_reaches_a_peer_that_is_still_sending(brisk: GatewayProcess, user: str) -> None:
    """To end the connection with something unread would reset it, and the code would be lost."""
    name = 'eventbus_refused_total{reason="bad_json"}'
    before = brisk.metrics().get(name, 0)
    for _ in range(5):
        raw = RawWebSocket(brisk, bearer(user))
        raw.head()
        for _ in range(60):
            raw.send(TEXT, b"{")
        assert code_of(raw) == 4502
        raw.close()
    assert brisk.metrics()[name] - before == 5 * 5, "what came behind its end is not looked at"
