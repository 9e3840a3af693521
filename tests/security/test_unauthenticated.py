"""People without a token cannot lock users out, and one connection holds the frames of one protocol only."""

from __future__ import annotations

import contextlib
import socket
import uuid
from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import wait_until
from tests.security.ways import WAYS, serving
from tests.webui_adapter.gateways import SECRET, GatewayProcess, RawWebSocket, token
from tests.webui_adapter.transports.raw_requests import request
from webui_adapter.errors import NotConfigured
from webui_adapter.settings import GatewaySettings, read_settings


@pytest.fixture(scope="module", params=WAYS)
def small(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, redis_url: str
) -> Iterator[GatewayProcess]:
    folder, prefix = tmp_path_factory.mktemp("small"), f"sec{uuid.uuid4().hex[:8]}"
    bounds = {"max_total_connections": 2, "max_unauthenticated_connections": 3, "auth_deadline": 60}
    with serving(request.param, folder, redis_url, prefix, **bounds) as process:
        yield process


def test_connections_without_a_token_lock_no_user_out_and_the_oldest_goes(small: GatewayProcess, user: str) -> None:
    waiting = []
    for _ in range(5):
        raw = RawWebSocket(small)
        assert raw.head().startswith("HTTP/1.1 101")
        waiting.append(raw)
    for oldest in waiting[:2]:
        with contextlib.suppress(ConnectionResetError), pytest.raises(EOFError):
            oldest.frame()
    metrics = small.metrics()
    assert metrics["eventbus_unauthenticated_connections"] == 3
    assert metrics['eventbus_refused_total{reason="unauthenticated"}'] == 2
    users = [RawWebSocket(small, f"Authorization: Bearer {token(f'{user}-{n}')}\r\n") for n in range(3)]
    assert [raw.head().split()[1] for raw in users] == ["101", "101", "503"]
    waiting[4].send(1, b'{"do":"auth","token":"%s"}' % token(user).encode())
    assert waiting[4].frame() == (8, (4003).to_bytes(2, "big") + b"this instance takes no more connections")
    for raw in (*waiting, *users):
        raw.close()
    wait_until(lambda: small.metrics()["eventbus_connections"] == 0, "them to be gone")
    assert small.metrics()["eventbus_unauthenticated_connections"] == 0


def test_a_handshake_behind_an_open_answer_ends_with_that_answer(small: GatewayProcess) -> None:
    with socket.create_connection(("127.0.0.1", small.port), timeout=10) as peer:
        peer.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" + request(small))
        said = b""
        while data := peer.recv(65_536):
            said += data
    assert said.startswith(b"HTTP/1.1 200")
    assert said.endswith(b"ok")
    assert b"101 Switching" not in said


@pytest.mark.parametrize("head", ["X-Long: " + "x" * 20_000, "Sec-WebSocket-Version: 12"], ids=["long", "version"])
def test_a_refused_handshake_is_answered_and_closed(small: GatewayProcess, head: str) -> None:
    lines = (
        request(small, head).replace(b"Sec-WebSocket-Version: 13\r\n", b"")
        if "Version" in head
        else request(small, head)
    )
    before = small.metrics().get("eventbus_connections", 0)
    with socket.create_connection(("127.0.0.1", small.port), timeout=10) as peer:
        peer.sendall(lines)
        said = b""
        while data := peer.recv(65_536):
            said += data
    assert said.startswith(b"HTTP/1.1 4"), "and the server closed the connection"
    wait_until(lambda: small.metrics()["eventbus_connections"] == before, "it to be gone")


def test_a_message_has_the_same_limit_both_ways(small: GatewayProcess) -> None:
    raw = RawWebSocket(small)
    raw.head()
    raw.socket.sendall(b"\x81\xff" + (65_537).to_bytes(8, "big") + b"\0\0\0\0" + b"x" * 1_000)
    opcode, payload = raw.frame()
    assert (opcode, payload[:2]) == (8, (1009).to_bytes(2, "big"))
    raw.close()


def test_answers_have_the_headers_that_browsers_need(small: GatewayProcess) -> None:
    prefix = small.prefix
    for path in ("/healthz", "/readyz", "/metrics", f"{prefix}/operations", f"{prefix}/sse"):
        answer = small.get(path)
        assert answer.headers["x-content-type-options"] == "nosniff", path
        assert answer.headers["cache-control"] == "no-store", path
    dead = httpx.get(f"{small.http}{prefix}/admin/dead-letters", timeout=10)
    assert (dead.status_code, dead.headers["cache-control"]) == (401, "no-store")
    assert small.get(f"{prefix}/client.js").headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    ("origin", "right"),
    [
        ("*", "each origin by itself"),
        ("https://*.example.org", "each origin by itself"),
        ("https://a.example/", "https://a.example"),
        ("https://a.example/path", "https://a.example"),
        ("HTTPS://A.example", "https://a.example"),
        ("a.example", "https://a.example"),
        ("https://a.example:443", "https://a.example"),
        ("http://a.example:80", "http://a.example"),
    ],
)
def test_an_origin_that_can_never_match_is_refused_at_the_start(origin: str, right: str) -> None:
    with pytest.raises(NotConfigured, match=r"WEBUI_ALLOWED_ORIGINS: the origin .* can never match") as refused:
        read_settings(GatewaySettings, jwt_secret=SECRET, allowed_origins=origin)
    assert f"write {right}" in str(refused.value)


@pytest.mark.parametrize("origin", ["https://a.example", "http://localhost:5173", "https://[::1]:8443", "app://page"])
def test_an_origin_as_browsers_send_it_is_accepted(origin: str) -> None:
    settings = read_settings(GatewaySettings, jwt_secret=SECRET, allowed_origins=f"{origin}, https://b.example")
    assert settings.allowed_origins == (origin, "https://b.example")
