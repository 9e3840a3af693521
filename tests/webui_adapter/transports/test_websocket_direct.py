"""The gateway's own WebSocket, where it runs alone, byte by byte; and what is not for it goes to uvicorn."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import wait_until
from tests.webui_adapter.gateways import GatewayProcess, RawWebSocket, running, token
from tests.webui_adapter.protocol.test_websocket_parser import BINARY, CLOSE, PING, PONG, TEXT, frame


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, redis_url: str, key_prefix: str) -> Iterator[GatewayProcess]:
    """A gateway with little patience for heads of requests."""
    folder: Path = tmp_path_factory.mktemp("strict")
    with running(
        folder,
        redis_url,
        key_prefix,
        handshake_timeout=0.6,
        max_handshake_size=2048,
        max_head_size=8192,
        close_timeout=1.0,
    ) as process:
        yield process


def code(number: int) -> bytes:
    return number.to_bytes(2, "big")


@contextlib.contextmanager
def connected(gateway: GatewayProcess, user: str | None = None) -> Iterator[RawWebSocket]:
    """A connection whose handshake is over; with a user it brings a token."""
    headers = f"Authorization: Bearer {token(user)}\r\n" if user is not None else ""
    raw = RawWebSocket(gateway, headers)
    head = raw.head()
    assert head.startswith("HTTP/1.1 101")
    assert "\r\ndate:" not in head.lower(), "uvicorn's way has one: this is not ours"
    try:
        yield raw
    finally:
        raw.close()


def heard(raw: RawWebSocket) -> list[tuple[int, bytes]]:
    """Every frame up to the end of the connection, which has to come without a reset."""
    frames = []
    with contextlib.suppress(EOFError):
        while True:
            frames.append(raw.frame())
    return frames


def answer(gateway: GatewayProcess, *parts: bytes) -> bytes:
    """What a server says to some bytes, until it ends the connection."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as peer:
        for part in parts:
            peer.sendall(part)
        said = b""
        with contextlib.suppress(ConnectionResetError):
            while data := peer.recv(65536):
                said += data
        return said


def request(gateway: GatewayProcess, *headers: str, path: str = "/ws") -> bytes:
    lines = [
        f"GET {gateway.prefix}{path} HTTP/1.1",
        "Host: x",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


# --- frames ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "wanted"),
    [
        (b"\x81\x01x", 1002),
        (b"\xc1\x80mask", 1002),
        (frame(3), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(TEXT, b"a", final=False) + frame(TEXT, b"b"), 1002),
        (frame(0, b"a"), 1002),
        (frame(CLOSE, b"\x03"), 1002),
        (frame(CLOSE, code(1005)), 1002),
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"x" * 65_537), 1009),
        (frame(TEXT, b"x" * 40_000, final=False) + frame(0, b"x" * 40_000), 1009),
    ],
)
def test_who_breaks_the_rules_is_told_with_a_code(gateway: GatewayProcess, sent: bytes, wanted: int) -> None:
    """Also if more of theirs is unread: nobody is reset before the code has come."""
    with connected(gateway) as raw:
        raw.socket.sendall(sent + frame(TEXT, b"{}") * 100)
        frames = heard(raw)
        assert [opcode for opcode, _ in frames] == [CLOSE]
        assert int.from_bytes(frames[0][1][:2], "big") == wanted


@pytest.mark.parametrize(
    ("sent", "wanted"),
    [
        (code(1000), code(1000)),
        (code(1001) + b"going", code(1001)),
        (code(4999), code(4999)),
        (b"", b""),
    ],
)
def test_a_close_is_answered_with_its_code(gateway: GatewayProcess, sent: bytes, wanted: bytes) -> None:
    with connected(gateway) as raw:
        raw.socket.sendall(frame(CLOSE, sent) + frame(PING, b"too late"))
        assert heard(raw) == [(CLOSE, wanted)]


def test_a_close_between_fragments_is_in_order(gateway: GatewayProcess) -> None:
    with connected(gateway) as raw:
        raw.socket.sendall(frame(TEXT, b'{"do"', final=False) + frame(CLOSE, code(1000)) + frame(0, b"}"))
        assert heard(raw) == [(CLOSE, code(1000))]


def test_commands_in_fragments_with_pings_between(gateway: GatewayProcess, user: str) -> None:
    command = json.dumps({"do": "ping", "ref": "r"}).encode()
    with connected(gateway, user) as raw:
        raw.socket.sendall(
            frame(TEXT, command[:5], final=False) + frame(PING, b"between") + frame(0, command[5:]) + frame(PONG)
        )
        frames = []
        while not any(b'"bus.ok"' in payload for _, payload in frames):
            frames.append(raw.frame())
        assert (PONG, b"between") in frames
        answered = [json.loads(payload) for opcode, payload in frames if opcode == TEXT]
        assert answered[-1]["data"] == {"ref": "r"}


def test_a_command_byte_by_byte_and_one_as_bytes(gateway: GatewayProcess, user: str) -> None:
    with connected(gateway, user) as raw:
        for byte in frame(TEXT, b'{"do":"ping","ref":1}'):
            raw.socket.sendall(bytes((byte,)))
        raw.send(BINARY, b'{"do":"ping","ref":2}')
        refs = []
        while refs != [1, 2]:
            word = json.loads(raw.frame()[1])
            if word["type"] == "bus.ok":
                refs.append(word["data"]["ref"])


def test_what_comes_right_behind_the_request_is_read(gateway: GatewayProcess, user: str) -> None:
    auth = json.dumps({"do": "auth", "token": token(user)}).encode()
    said = answer(gateway, request(gateway) + frame(TEXT, auth) + frame(PING, b"p") + frame(CLOSE, code(1000)))
    assert said.startswith(b"HTTP/1.1 101")
    assert b'"bus.hello"' in said
    assert said.endswith(b"\x88\x02\x03\xe8")


def test_a_peer_that_only_pings_and_never_reads_is_cut(gateway: GatewayProcess) -> None:
    raw = RawWebSocket(gateway, receive_buffer=4096)
    raw.head()
    flood = frame(PING, b"x" * 125) * 500
    before = gateway.memory()
    with pytest.raises((ConnectionError, TimeoutError)):
        raw.socket.sendall(flood * 2000)
    assert gateway.memory() - before < 30_000_000, "the answers did not pile up"
    raw.close()


def test_a_half_closed_peer_is_gone(gateway: GatewayProcess, user: str) -> None:
    with connected(gateway, user) as raw:
        raw.socket.shutdown(socket.SHUT_WR)
        heard(raw)
    wait_until(lambda: gateway.metrics()["eventbus_connections"] == 0, "it to be gone")


def test_a_peer_that_does_not_answer_its_end_is_cut(strict: GatewayProcess) -> None:
    """It has broken the rules, has been told so, and just stays."""
    with connected(strict) as raw:
        raw.socket.sendall(b"\xff\xff")
        assert raw.frame()[0] == CLOSE
        with pytest.raises((EOFError, ConnectionResetError)):
            raw.frame()
        wait_until(lambda: _refused(raw.socket), "the socket to be cut")


def _refused(peer: socket.socket) -> bool:
    try:
        peer.sendall(b"x")
    except OSError:
        return True
    return False


def test_who_resets_the_connection_leaves_nothing(gateway: GatewayProcess, user: str) -> None:
    with connected(gateway, user) as raw:
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: gateway.metrics()["eventbus_connections"] == 0, "it to be gone")


def test_connections_that_ask_nothing_do_not_hold_up_the_end(
    tmp_path: Path, redis_url: str, key_prefix: str, user: str
) -> None:
    """One without a word, one in the middle of a head, and a session: all are let go, the session with its code."""
    with running(
        tmp_path, redis_url, key_prefix, drain_spread=0, shutdown_grace=0.2, handshake_timeout=60, close_timeout=60
    ) as own:
        silent = socket.create_connection(("127.0.0.1", own.port), timeout=10)
        begun = socket.create_connection(("127.0.0.1", own.port), timeout=10)
        begun.sendall(request(own)[:30])
        with connected(own, user) as raw:
            own.signal(signal.SIGTERM)
            frames = []
            while not frames or frames[-1][0] != CLOSE:
                frames.append(raw.frame())
            assert frames[-1][1][:2] == code(4000)
            raw.send(CLOSE, code(4000))
        assert silent.recv(1) == begun.recv(1) == b""
        assert own.wait(5) in (0, -signal.SIGTERM)
        silent.close()
        begun.close()


# --- requests --------------------------------------------------------------------------------------------------------


def test_a_handshake_in_small_pieces(gateway: GatewayProcess) -> None:
    data = request(gateway) + frame(CLOSE, code(1000))
    parts = [data[i : i + 7] for i in range(0, len(data), 7)]
    assert answer(gateway, *parts).startswith(b"HTTP/1.1 101")


def test_a_head_that_does_not_end_has_its_time(strict: GatewayProcess) -> None:
    start = time.monotonic()
    for begun in (request(strict)[:-2], b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"POST"):
        said = answer(strict, begun)
        assert said.startswith(b"HTTP/1.1 408 "), said
    assert answer(strict) == b"", "who asks nothing is not answered"
    assert time.monotonic() - start < 8


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
    """Asked for or not: what comes a byte at a time would hold the connection for ever."""
    head = f"Host: x\r\nAuthorization: Bearer {token('ann', scope='eventbus:admin')}\r\nContent-Length: 100000\r\n\r\n"
    posted = f"POST {strict.prefix}/admin/dead-letters/purge HTTP/1.1\r\n{head}"
    assert answer(strict, posted.encode(), b"{").startswith(b"HTTP/1.1 408 ")
    with socket.create_connection(("127.0.0.1", strict.port), timeout=0.1) as peer:
        peer.sendall(f"GET /healthz HTTP/1.1\r\n{head}".encode())
        deadline = time.monotonic() + 5
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
