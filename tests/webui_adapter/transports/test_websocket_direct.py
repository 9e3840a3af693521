"""The gateway's own WebSocket, where it runs alone, byte by byte; and what is not for it goes to uvicorn."""

from __future__ import annotations

import json
import signal
import socket
import struct
from pathlib import Path

import pytest

from tests.conftest import wait_until
from tests.webui_adapter.gateways import GatewayProcess, RawWebSocket, running, token
from tests.webui_adapter.protocol.test_websocket_parser import BINARY, CLOSE, PING, PONG, TEXT, frame
from tests.webui_adapter.transports.raw_requests import answer, code, connected, heard, request

# --- frames ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "expected"),
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
def test_a_client_that_breaks_the_rules_gets_a_close_code(gateway: GatewayProcess, sent: bytes, expected: int) -> None:
    """Also with unread bytes: the gateway resets no connection before the client has the code."""
    with connected(gateway) as raw:
        raw.socket.sendall(sent + frame(TEXT, b"{}") * 100)
        frames = heard(raw)
        assert [opcode for opcode, _ in frames] == [CLOSE]
        assert int.from_bytes(frames[0][1][:2], "big") == expected


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (code(1000), code(1000)),
        (code(1001) + b"going", code(1001)),
        (code(4999), code(4999)),
        (b"", b""),
    ],
)
def test_a_close_is_answered_with_its_code(gateway: GatewayProcess, sent: bytes, expected: bytes) -> None:
    with connected(gateway) as raw:
        raw.socket.sendall(frame(CLOSE, sent) + frame(PING, b"too late"))
        assert heard(raw) == [(CLOSE, expected)]


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
            answer = json.loads(raw.frame()[1])
            if answer["type"] == "bus.ok":
                refs.append(answer["data"]["ref"])


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
    """The client broke the rules, received the close code, and stays connected."""
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
    """A silent connection, one in the middle of a head, and a session: all are closed, the session with its code."""
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
