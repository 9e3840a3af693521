"""uvicorn's protocol with our way out, on real sockets under a small ASGI application of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from tests.webui_adapter.gateways import SECRET, RawWebSocket
from webui_adapter import GatewaySettings
from webui_adapter.protocol.websocket_frames import text_frame
from webui_adapter.transports.uvicorn_websocket import EXTENSION, WebSocketProtocol

TEXT, CLOSE = 1, 8


class Owner:
    """Records the calls of the protocol."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def paused(self) -> None:
        self.heard.append("paused")

    def resumed(self) -> None:
        self.heard.append("resumed")

    def ponged(self) -> None:
        self.heard.append("ponged")

    message_limit = 65_536

    def received(self, frames: int, size: int, waiting: int) -> float | None:
        return 0.0

    def shutdown(self) -> None:
        self.heard.append("shutdown")


Handler = Callable[[WebSocketProtocol, Any], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(handler: Handler, write_high: int = 65_536) -> AsyncIterator[tuple[SimpleNamespace, Owner]]:
    """A server whose application accepts, takes the connection over, and does what the test wants."""
    owner = Owner()
    failures: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        protocol = scope["extensions"][EXTENSION]["protocol"]
        protocol.take_over(owner, GatewaySettings(jwt_secret=SECRET, write_high=write_high))
        try:
            await handler(protocol, receive)
        except BaseException as error:
            failures.append(error)
            raise

    config = uvicorn.Config(app, ws="webui_adapter.uvicorn:WebSocketProtocol", log_config=None)
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: WebSocketProtocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    async with server:
        yield SimpleNamespace(port=server.sockets[0].getsockname()[1], prefix=""), owner
        for connection in list(state.connections):
            connection.transport.abort()
    assert not failures


def talk(address: SimpleNamespace, *frames: tuple[int, bytes]) -> list[tuple[int, bytes]]:
    """Send frames in one write. Return all frames received until the end, in order."""
    raw = RawWebSocket(address)
    raw.head()
    for opcode, payload in frames:
        raw.send(opcode, payload)
    heard = []
    with contextlib.suppress(EOFError):
        while True:
            heard.append(raw.frame())
    raw.close()
    return heard


def code(number: int) -> bytes:
    return number.to_bytes(2, "big")


async def test_an_end_while_the_peer_is_going_raises_nothing_and_writes_nothing() -> None:
    async def handler(protocol: WebSocketProtocol, receive: Any) -> None:
        assert (await receive())["type"] == "websocket.disconnect"
        protocol.write(text_frame(b"too late"))
        protocol.ping()
        protocol.end(4000, "too late", 1)
        protocol.end(4000, "and again", 1)

    async with serving(handler) as (address, _):
        assert await asyncio.to_thread(talk, address, (CLOSE, code(1000))) == [(CLOSE, code(1000))]


async def test_nothing_is_written_behind_the_close_of_a_peer_that_reads_slowly() -> None:
    """Its answer waits behind what the socket has not taken: there the transport is not closed yet."""

    async def handler(protocol: WebSocketProtocol, receive: Any) -> None:
        protocol.write(text_frame(b"x" * 8_000_000))
        assert (await receive())["type"] == "websocket.disconnect"
        protocol.write(text_frame(b"too late"))

    async with serving(handler) as (address, owner):
        heard = await asyncio.to_thread(talk, address, (CLOSE, code(1000)))
        assert [opcode for opcode, _ in heard] == [TEXT, CLOSE]
        assert len(heard[0][1]) == 8_000_000
        assert owner.heard[0] == "paused"


async def test_the_end_waits_for_the_peers_answer_and_reads_on_for_it() -> None:
    """Bytes of the peer are still unread. Closing the socket now would reset the connection."""
    ended = asyncio.Event()

    async def handler(protocol: WebSocketProtocol, _: Any) -> None:
        while not protocol.read_paused:
            await asyncio.sleep(0)
        protocol.end(4001, "slow", 60)
        ended.set()

    def peer(address: SimpleNamespace) -> list[tuple[int, bytes]]:
        raw = RawWebSocket(address)
        raw.head()
        raw.send(TEXT, b"one")
        heard = [raw.frame()]
        raw.send(TEXT, b"x" * 60_000)
        raw.send(CLOSE, code(4001))
        with contextlib.suppress(EOFError):
            heard.append(raw.frame())
        raw.close()
        return heard

    async with serving(handler) as (address, _), asyncio.timeout(10):
        assert await asyncio.to_thread(peer, address) == [(CLOSE, code(4001) + b"slow")]
        assert ended.is_set()


async def test_a_peer_that_does_not_answer_the_close_is_cut_off() -> None:
    async def handler(protocol: WebSocketProtocol, _: Any) -> None:
        protocol.end(4001, "slow " * 50, 0.2)

    async with serving(handler) as (address, _), asyncio.timeout(5):
        heard = await asyncio.to_thread(talk_until_reset, address)
        assert heard == [(CLOSE, code(4001) + ("slow " * 50)[:120].encode())], "a reason has room for 123 bytes"


def talk_until_reset(address: SimpleNamespace) -> list[tuple[int, bytes]]:
    with contextlib.suppress(ConnectionResetError):
        return talk(address)
    return []


async def test_compression_is_not_agreed_on_whatever_the_server_would() -> None:
    async def handler(_: WebSocketProtocol, receive: Any) -> None:
        await receive()

    async with serving(handler) as (address, _):
        raw = await asyncio.to_thread(RawWebSocket, address, "Sec-WebSocket-Extensions: permessage-deflate\r\n")
        head = await asyncio.to_thread(raw.head)
        assert head.startswith("HTTP/1.1 101")
        assert "extensions" not in head.lower()
        raw.close()


async def test_the_owner_hears_of_a_socket_that_is_full_and_one_that_takes_again() -> None:
    async def handler(protocol: WebSocketProtocol, receive: Any) -> None:
        protocol.write(text_frame(b"x" * 8_000_000))
        await receive()

    async with serving(handler, write_high=10_000) as (address, owner):
        raw = await asyncio.to_thread(RawWebSocket, address)
        await asyncio.to_thread(raw.head)
        assert owner.heard == ["paused"]
        await asyncio.to_thread(raw.frame)
        async with asyncio.timeout(5):
            while owner.heard != ["paused", "resumed"]:
                await asyncio.sleep(0.01)
        raw.send(10, b"")
        async with asyncio.timeout(5):
            while owner.heard[-1] != "ponged":
                await asyncio.sleep(0.01)
        raw.close()
