"""Real parts for these tests: gateway processes, clients over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import connect

from tests.webui_adapter.page import Page
from webui_adapter.testing.gateway_process import GatewayProcess as Process
from webui_adapter.testing.token import make_token
from webui_adapter.testing.websocket_client import Client

ROOT = Path(__file__).parents[2]
SECRET = "a secret of these tests, long enough"
ORIGIN = "https://app.example.org"


def token(user: str, *, seconds: float = 600, key: str = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    """A good token, or one that differs in what is named."""
    return make_token(user, key, seconds=seconds, algorithm=algorithm, claims=claims)


class GatewayProcess(Process):
    """``python -m webui_adapter`` with settings of these tests; what it says is looked through at its end."""

    def __init__(self, folder: Path, redis_url: str, key_prefix: str = "eb", **settings: object) -> None:
        own = {"jwt_secret": SECRET, "events": "tests.webui_adapter.events", "EVENTBUS_SOCKET_TIMEOUT": "0.7"}
        super().__init__(folder, redis_url, key_prefix, **{**own, **settings})

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(f"{self.http}{path}", timeout=10, **options)

    def metrics(self) -> dict[str, float]:
        """Samples of /metrics by name and labels."""
        lines = self.get("/metrics").text.splitlines()
        return {name: float(value) for name, _, value in (ln.rpartition(" ") for ln in lines if not ln.startswith("#"))}

    def memory(self) -> int:
        """Resident bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))

    def stop(self) -> None:
        """End it, and check that it had nothing to complain of."""
        if self.process is not None:
            super().stop()
            check_log(self.log.read_text())


def check_log(text: str) -> None:
    """Assert that every line is JSON, and that none has an unexpected exception."""
    for line in text.splitlines():
        entry = json.loads(line)
        # An authoriser is the application's, and one of these tests raises; and uvicorn is loud about bad UTF-8.
        expected = entry["event"].startswith(("cannot authorise collection", "Invalid UTF-8"))
        assert "exception" not in entry or expected, entry
        assert "Exception in ASGI" not in entry["event"], entry
        assert "never retrieved" not in entry["event"], entry
        assert "Task was destroyed" not in entry["event"], entry


@contextlib.contextmanager
def running(*args: Any, **settings: object) -> Iterator[GatewayProcess]:
    gateway = GatewayProcess(*args, **settings)
    gateway.start()
    try:
        yield gateway.wait_ready(90)
    finally:
        gateway.stop()


async def eventually(condition: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    """``wait_until`` that lets the event loop go on."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for: {what}"
        await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def page(
    gateway: Any, user: str, cursor: str | Page = "", *topics: str, wait: bool = True, **claims: Any
) -> AsyncIterator[Client]:
    """A page of a user, greeted, with the histories of its two channels."""
    model = cursor if isinstance(cursor, Page) else Page(cursor)
    headers = {"Authorization": f"Bearer {token(user, **claims)}"}
    query = httpx.QueryParams([("cursor", model.cursor), *(("topic", topic) for topic in topics)])
    del model.control_events[:]
    async with connect(
        f"{gateway.ws}?{query}", additional_headers=headers, compression=None, max_size=None, ping_interval=None
    ) as connection:
        client = Client(connection, model)
        if wait:
            await client.until_settled(f"user:{user}", "system")
        yield client


class RawWebSocket:
    """A WebSocket of bytes: one that need not read, answer, or keep to the rules."""

    def __init__(
        self, gateway: Any, headers: str = "", query: str = "", receive_buffer: int | None = None, source: str = ""
    ) -> None:
        self.socket = socket.socket()
        if source:
            self.socket.bind((source, 0))
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(15)
        self.socket.connect(("127.0.0.1", gateway.port))
        self.socket.sendall(
            f"GET {gateway.prefix}/ws{query} HTTP/1.1\r\nHost: 127.0.0.1:{gateway.port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            f"{headers}\r\n".encode()
        )
        self.buffer = b""

    def head(self) -> str:
        """The answer to the handshake."""
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        return head.decode()

    def frame(self) -> tuple[int, bytes]:
        """The next frame: opcode and payload. EOFError at the end of the connection."""
        while True:
            size, start = (self.buffer[1] & 127, 2) if len(self.buffer) >= 2 else (0, 99)
            if size == 126:
                size, start = int.from_bytes(self.buffer[2:4], "big"), 4
            elif size == 127:
                size, start = int.from_bytes(self.buffer[2:10], "big"), 10
            if len(self.buffer) >= start + size:
                opcode, payload = self.buffer[0] & 15, self.buffer[start : start + size]
                self.buffer = self.buffer[start + size :]
                return opcode, payload
            self._more()

    def send(self, opcode: int, payload: bytes) -> None:
        size = len(payload)
        head = (
            bytes((0x80 | opcode, 0x80 | size))
            if size < 126
            else bytes((0x80 | opcode, 0xFE)) + size.to_bytes(2, "big")
        )
        self.socket.sendall(head + b"\0\0\0\0" + payload)  # a mask of zeros is a mask

    def _more(self) -> None:
        data = self.socket.recv(262_144)
        if not data:
            raise EOFError
        self.buffer += data

    def close(self) -> None:
        self.socket.close()
