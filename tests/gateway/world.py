"""Real parts for these tests: gateway processes, clients over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.conftest import free_port, wait_until
from tests.gateway.page import Frame, Page

ROOT = Path(__file__).parents[2]
SECRET = "a secret of these tests, long enough"
ORIGIN = "https://app.example.org"


def token(user: str, *, seconds: float = 600, key: str = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    """A good token, or one that differs in what is named."""
    return jwt.encode({"sub": user, "exp": int(time.time() + seconds), **claims}, key, algorithm)


class GatewayProcess:
    """``python -m webui_adapter`` with settings of its own."""

    def __init__(self, folder: Path, redis_url: str, key_prefix: str = "eb", **settings: object) -> None:
        self.port = free_port()
        self.log = folder / f"gateway-{self.port}.log"
        self.prefix = str(settings.get("prefix", "/eventbus"))
        self.key_prefix = key_prefix
        names = {
            "port": self.port,
            "jwt_secret": SECRET,
            "events": "tests.gateway.events",
            **settings,
        }
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("WEBUI_", "EVENTBUS_"))},
            "EVENTBUS_REDIS_URL": redis_url,
            "EVENTBUS_KEY_PREFIX": key_prefix,
            "EVENTBUS_SOCKET_TIMEOUT": "0.7",
            **{
                (name if name.isupper() else f"WEBUI_{name.upper()}"): str(value)
                for name, value in names.items()
                if value is not None
            },
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> GatewayProcess:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "webui_adapter"], cwd=ROOT, env=self._environment, stderr=log, stdout=log
            )
        return self

    def wait_ready(self) -> GatewayProcess:
        wait_until(self._ready, f"the gateway to be ready; its log: {self.log.read_text()[-2000:]}", 30)
        return self

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(f"{self.http}{path}", timeout=10, **options)

    def metrics(self) -> dict[str, float]:
        """Samples of /metrics by name and labels."""
        lines = self.get("/metrics").text.splitlines()
        return {name: float(value) for name, _, value in (ln.rpartition(" ") for ln in lines if not ln.startswith("#"))}

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}{self.prefix}/ws"

    @property
    def sse(self) -> str:
        return f"{self.http}{self.prefix}/sse"

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def memory(self) -> int:
        """Resident bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))

    def wait(self, seconds: float = 15) -> int:
        assert self.process is not None
        return self.process.wait(seconds)

    def stop(self) -> None:
        """End it, and check that it had nothing to complain of."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            self.process.wait()
            self.process = None
            check_log(self.log.read_text())


def check_log(text: str) -> None:
    """Every line is JSON, and none tells of an exception that nobody expected."""
    for line in text.splitlines():
        entry = json.loads(line)
        # An authoriser is the application's, and one of these tests raises; and uvicorn is loud about bad UTF-8.
        expected = entry["event"].startswith(("the authoriser failed", "Invalid UTF-8"))
        assert "exception" not in entry or expected, entry
        assert "Exception in ASGI" not in entry["event"], entry
        assert "never retrieved" not in entry["event"], entry
        assert "Task was destroyed" not in entry["event"], entry


@contextlib.contextmanager
def running(*args: Any, **settings: object) -> Iterator[GatewayProcess]:
    gateway = GatewayProcess(*args, **settings)
    gateway.start()
    try:
        yield gateway.wait_ready()
    finally:
        gateway.stop()


async def eventually(condition: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    """``wait_until`` that lets the event loop go on."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain for: {what}"
        await asyncio.sleep(0.005)


class Client:
    """A page on a WebSocket."""

    def __init__(self, connection: ClientConnection, page: Page) -> None:
        self.connection = connection
        self.page = page
        self.raw: list[str | bytes] = []

    async def hear(self, seconds: float = 10.0) -> Frame:
        async with asyncio.timeout(seconds):
            text = await self.connection.recv()
        self.raw.append(text)
        return self.page.hear(text)

    async def until(self, condition: Callable[[Page], object], what: str = "", seconds: float = 10.0) -> None:
        """Hear until the page is in a state."""
        try:
            async with asyncio.timeout(seconds):
                while not condition(self.page):
                    await self.hear(seconds)
        except TimeoutError:
            heard = [(f["type"], f.get("offset"), f["data"]) for f in (*self.page.words, *self.page.events)][-12:]
            raise AssertionError(f"waited {seconds:g} s in vain for: {what or condition}; last: {heard}") from None

    async def until_settled(self, *channels: str) -> None:
        """Hear until each channel's history has come."""
        wanted = set(channels)
        await self.until(
            lambda page: wanted <= {data["channel"] for data in page.said("bus.position")}, f"history of {channels}"
        )

    async def tell(self, **command: object) -> None:
        await self.connection.send(json.dumps(command))

    async def ask(self, **command: object) -> Frame:
        """Send a command and wait for its answer."""
        ref = command.setdefault("ref", f"r{len(self.page.words)}-{time.monotonic_ns()}")
        await self.tell(**command)
        answers: list[Frame] = []

        def answered(page: Page) -> bool:
            answers[:] = [word for word in page.words if word["data"].get("ref") == ref]
            return bool(answers)

        await self.until(answered, f"the answer to {command}")
        return answers[0]

    async def closed(self, seconds: float = 10.0) -> int:
        """Hear everything to the end; the close code."""
        try:
            while True:
                await self.hear(seconds)
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd is not None else 1006


@contextlib.asynccontextmanager
async def page(
    gateway: Any, user: str, cursor: str | Page = "", *topics: str, wait: bool = True, **claims: Any
) -> AsyncIterator[Client]:
    """A page of a user, greeted, with the histories of its two channels."""
    model = cursor if isinstance(cursor, Page) else Page(cursor)
    headers = {"Authorization": f"Bearer {token(user, **claims)}"}
    query = httpx.QueryParams([("cursor", model.cursor), *(("topic", topic) for topic in topics)])
    del model.words[:]
    async with connect(
        f"{gateway.ws}?{query}", additional_headers=headers, compression=None, max_size=None, ping_interval=None
    ) as connection:
        client = Client(connection, model)
        if wait:
            await client.until_settled(f"user:{user}", "system")
        yield client


class RawWebSocket:
    """A WebSocket of bytes: one that need not read, answer, or keep to the rules."""

    def __init__(self, gateway: Any, headers: str = "", query: str = "", receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
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
