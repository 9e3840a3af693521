"""A mounted gateway has the limits of a stand-alone one; where the server does not offer them, its log says so."""

from __future__ import annotations

import contextlib
import signal
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventbus import Bus, BusSettings
from tests.conftest import wait_until
from tests.security.ways import CLASSES, MountedProcess
from tests.webui_adapter.events import Note
from tests.webui_adapter.gateways import SECRET, token
from tests.webui_adapter.transports.raw_requests import answer

WS = "run uvicorn with --ws webui_adapter.uvicorn:WebSocketProtocol"
HTTP = "run uvicorn with --http webui_adapter.uvicorn:HttpProtocol"
DRAIN = "cannot give pages 0.8 s to leave at the shutdown: run uvicorn with --timeout-graceful-shutdown above"
BOUNDS = {
    "handshake_timeout": 0.6,
    "max_head_size": 2048,
    "stuck_after": 1,
    "close_timeout": 1,
    "drain_spread": 0.3,
    "shutdown_grace": 0.5,
}


@contextlib.contextmanager
def mounted(folder: Path, redis_url: str, *options: str) -> Iterator[MountedProcess]:
    own = MountedProcess(folder, redis_url, f"sec{uuid.uuid4().hex[:8]}", jwt_secret=SECRET, **BOUNDS)
    own.options = options
    own.start()
    try:
        yield own.wait_ready(90)
    finally:
        own.stop()


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ((), {WS, HTTP}),
        (CLASSES[:2], {HTTP}),
        (CLASSES[2:], {WS}),
        (CLASSES, set()),
        ((*CLASSES, "--timeout-graceful-shutdown", "0"), {DRAIN}),
    ],
    ids=["none", "ws", "http", "both", "short"],
)
def test_the_start_names_the_options_that_are_missing(
    tmp_path: Path, redis_url: str, options: tuple[str, ...], missing: set[str]
) -> None:
    with mounted(tmp_path, redis_url, *options) as own:
        log = own.log.read_text()
    assert {line for line in (WS, HTTP, DRAIN) if line in log} == missing


@pytest.fixture
def site(tmp_path: Path, redis_url: str) -> Iterator[MountedProcess]:
    with mounted(tmp_path, redis_url, *CLASSES) as own:
        yield own


def test_a_head_follows_the_settings_of_the_gateway(site: MountedProcess) -> None:
    """Its time and its size; neither is an option of uvicorn."""
    # The limit of the class itself is 10 s.
    with socket.create_connection(("127.0.0.1", site.port), timeout=6) as peer:
        peer.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        assert peer.recv(65_536).startswith(b"HTTP/1.1 408 ")
    long = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 3_000
    assert answer(site, long).startswith(b"HTTP/1.1 431 ")


@contextlib.contextmanager
def stuck_stream(site: MountedProcess, redis_url: str, user: str) -> Iterator[socket.socket]:
    """An event stream whose reader takes nothing, with more events than all buffers hold."""
    bus = Bus(BusSettings(redis_url=redis_url, key_prefix=site.key_prefix))
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.settimeout(15)
        peer.connect(("127.0.0.1", site.port))
        head = f"GET {site.prefix}/sse HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token(user)}\r\n\r\n"
        peer.sendall(head.encode())
        wait_until(lambda: site.metrics()["eventbus_connections"] == 1, "the session")
        for n in range(200):
            bus.emit(user, "op", Note(n=n, pad="x" * 50_000))
        assert bus.flush(30)
        bus.close()
        yield peer


def ended(peer: socket.socket) -> bool:
    """Read what the buffers hold, up to the end of the connection."""
    try:
        while peer.recv(262_144):
            pass
    except ConnectionResetError:
        return True
    return True


def test_a_stream_that_is_not_read_is_cut(site: MountedProcess, redis_url: str, user: str) -> None:
    with stuck_stream(site, redis_url, user) as peer:
        wait_until(lambda: site.metrics()["eventbus_connections"] == 0, "the session to end", 30)
        assert ended(peer), "its socket as well"


def test_sigterm_ends_a_server_whose_stream_is_not_read(site: MountedProcess, redis_url: str, user: str) -> None:
    with stuck_stream(site, redis_url, user) as peer:
        site.signal(signal.SIGTERM)
        assert site.wait(15) in (0, -signal.SIGTERM)
        assert ended(peer)
