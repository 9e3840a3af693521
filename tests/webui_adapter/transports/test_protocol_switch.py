"""Heads of requests to the stand-alone gateway: time, size, and whose protocol serves them."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest

from tests.webui_adapter.gateways import GatewayProcess, token
from tests.webui_adapter.protocol.test_websocket_parser import CLOSE, frame
from tests.webui_adapter.transports.raw_requests import answer, code, request


def test_a_handshake_in_small_pieces(gateway: GatewayProcess) -> None:
    data = request(gateway) + frame(CLOSE, code(1000))
    parts = [data[i : i + 7] for i in range(0, len(data), 7)]
    assert answer(gateway, *parts).startswith(b"HTTP/1.1 101")


def test_a_head_that_does_not_end_has_its_time(strict: GatewayProcess) -> None:
    for begun in (request(strict)[:-2], b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"POST"):
        said = answer(strict, begun)
        assert said.startswith(b"HTTP/1.1 408 "), said
    assert answer(strict) == b"", "who asks nothing is not answered"


def test_the_second_head_of_a_connection_has_its_time_too(strict: GatewayProcess) -> None:
    first = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    said = answer(strict, first + b"GET /healthz HTTP/1.1\r\n")
    assert said.startswith(b"HTTP/1.1 200")
    assert b"HTTP/1.1 408 " in said


def test_a_head_that_is_too_long(strict: GatewayProcess) -> None:
    for much in (f"X: {'x' * 3000}", f"X: {'x' * 500_000}"):
        assert answer(strict, request(strict, much)).startswith(b"HTTP/1.1 431 ")
    assert answer(strict, request(strict, f"X: {'x' * 1000}") + frame(CLOSE, b"")).startswith(b"HTTP/1.1 101")


def test_a_head_of_http_is_bounded_too(strict: GatewayProcess) -> None:
    """uvicorn's parser would collect whatever comes: 150 MB in the seconds that a head has."""
    with socket.create_connection(("127.0.0.1", strict.port), timeout=10) as peer:
        use(peer)
        before = strict.memory()
        peer.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(500):
                peer.sendall(f"X: {'x' * 99_990}\r\n".encode())
            pytest.fail("50 MB were taken")
    assert strict.memory() - before < 10_000_000
    for much in (9_000, 100_000):
        long = f"GET /healthz HTTP/1.1\r\nHost: x\r\nX: {'x' * much}"
        assert answer(strict, long.encode(), b"x").startswith(b"HTTP/1.1 431 ")


def test_a_body_that_does_not_end_has_its_time(strict: GatewayProcess) -> None:
    """Requested or not: a body of one byte at a time would hold the connection forever."""
    head = f"Host: x\r\nAuthorization: Bearer {token('ann', scope='eventbus:admin')}\r\nContent-Length: 100000\r\n\r\n"
    posted = f"POST {strict.prefix}/admin/dead-letters/purge HTTP/1.1\r\n{head}"
    assert answer(strict, posted.encode(), b"{").startswith(b"HTTP/1.1 408 ")
    with socket.create_connection(("127.0.0.1", strict.port), timeout=0.1) as peer:
        peer.sendall(f"GET /healthz HTTP/1.1\r\n{head}".encode())
        deadline = time.monotonic() + 30
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < deadline:
                with contextlib.suppress(TimeoutError):
                    if not peer.recv(65536):
                        return
                peer.sendall(b"x")
            pytest.fail("it goes on")


def test_a_handshake_that_is_not_in_order(gateway: GatewayProcess) -> None:
    good = request(gateway)
    old = answer(gateway, good.replace(b"Version: 13", b"Version: 8"))
    assert old.startswith(b"HTTP/1.1 426 ")
    assert b"\r\nSec-WebSocket-Version: 13\r\n" in old
    assert answer(gateway, good.replace(b"Key: d", b"Key: !")).startswith(b"HTTP/1.1 400 ")
    assert answer(gateway, request(gateway, "Origin: https://evil.example")).startswith(b"HTTP/1.1 403 ")


def use(peer: socket.socket) -> None:
    """Ask something and read the whole answer; the connection stays."""
    peer.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    said = b""
    while not said.endswith(b"\r\n\r\nok"):
        said += peer.recv(65536)
    assert said.startswith(b"HTTP/1.1 200")


def test_a_connection_that_was_used_before_becomes_one_of_ours(gateway: GatewayProcess, user: str) -> None:
    """A proxy keeps its connections for whatever comes next."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as peer:
        use(peer)
        peer.sendall(request(gateway, f"Authorization: Bearer {token(user)}"))
        said = b""
        while b'"bus.hello"' not in said:
            said += peer.recv(65536)
        assert said.startswith(b"HTTP/1.1 101")
        assert b"\r\ndate:" not in said.lower(), "not uvicorn's way"
        peer.sendall(frame(CLOSE, code(1000)))
        while not said.endswith(b"\x88\x02\x03\xe8"):
            said += peer.recv(65536)


def test_on_such_a_connection_the_same_is_refused(gateway: GatewayProcess) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as peer:
        use(peer)
        peer.sendall(request(gateway, "Origin: https://evil.example"))
        assert peer.recv(65536).startswith(b"HTTP/1.1 403")


@pytest.mark.parametrize("path", ["/wss", "/w%73", "/ws/more"])
def test_other_spellings_are_uvicorns(gateway: GatewayProcess, path: str) -> None:
    said = answer(gateway, request(gateway, path=path) + frame(CLOSE, code(1000)))
    assert b"\r\ndate:" in said.lower()
    assert said.startswith(b"HTTP/1.1 101" if path == "/w%73" else b"HTTP/1.1 40")


def test_a_body_behind_a_request_is_uvicorns_business(gateway: GatewayProcess) -> None:
    body = b'{"do":"ping"}'
    head = f"POST {gateway.prefix}/sessions/none/commands HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    data = (head + "Connection: close\r\n\r\n").encode() + body
    said = answer(gateway, data[:4], data[4:])
    assert said.startswith(b"HTTP/1.1 401")
