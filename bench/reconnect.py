"""`python -m bench.reconnect`: all sessions disconnect, miss some events, and reconnect with their cursors.

It measures the cost for the gateway and counts lost events. The sessions reconnect over some seconds, as with the
client's jitter. The clients run in this process, so the gateway's CPU time does not include them.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Final, cast

import jwt
import typer
import uvloop
from rich.console import Console

from bench.contenders.contract import SECRET, Launch
from bench.contenders.eventbus import OURS, Tick
from bench.payload import NAME, OPERATION, padding, user_name
from bench.processes import Child, Cpu, cpu_of, free_port, resident_bytes, wait_until_ready
from bench.redis_server import running_redis
from bench.results import machine
from eventbus import Bus, BusSettings

_RESULTS: Final = Path(__file__).parent / "results"
_IN_FLIGHT: Final = 64  # parallel connects during the first opening
_PER_SOURCE: Final = 5000  # connections per loopback address, because ports of closed connections stay in use
_LIMIT_S: Final = 60.0
_CLOSE, _PING = 8, 9
_BIND_ADDRESS_NO_PORT: Final = 24  # from linux/in.h; the socket module has it since Python 3.12
_console = Console(width=150)


class _Page(asyncio.Protocol):
    """One browser page: stores its cursor and counts its events."""

    def __init__(self, number: int, token: str) -> None:
        self.number = number
        self.user = user_name(number)
        self._token = token
        self.cursor: dict[str, tuple[str, int]] = {}
        self._recovered: set[str] = set()
        self.expected = 0
        self.missing = self.repeated = self.gaps = self.closes = 0
        self._ready: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._unread = b""
        self._upgraded = False

    async def connect(self, port: int) -> None:
        """Connect with the cursor. Returns when the histories of both channels have arrived."""
        loop = asyncio.get_running_loop()
        self._ready, self._recovered, self._unread, self._upgraded = loop.create_future(), set(), b"", False
        connection = socket.socket()
        connection.setblocking(False)
        # The port is chosen at connect. With many closed connections, a search in bind took up to 18 s of CPU time, and
        # the gateway waited for it.
        connection.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
        connection.bind((f"127.0.0.{2 + self.number // _PER_SOURCE}", 0))
        await loop.sock_connect(connection, ("127.0.0.1", port))
        await loop.create_connection(lambda: self, sock=connection)
        await self._ready

    def cut(self) -> None:
        assert self._transport is not None
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        parts = (
            f"{channel}={epoch}.{offset}" if epoch else f"{channel}=0"
            for channel, (epoch, offset) in self.cursor.items()
        )
        cursor = ",".join(parts)
        self._transport.write(
            f"GET {OURS.path}?cursor={cursor} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            f"Authorization: Bearer {self._token}\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        self._unread += data
        if not self._upgraded:
            head, found, rest = self._unread.partition(b"\r\n\r\n")
            if not found:
                return
            if b" 101 " not in head:
                raise RuntimeError(f"cannot connect: {head.decode()}")
            self._upgraded, self._unread = True, rest
        while (frame := self._frame()) is not None:
            self._on_frame(*frame)

    def _frame(self) -> tuple[int, bytes] | None:
        data = self._unread
        if len(data) < 2 or (data[1] == 126 and len(data) < 4):
            return None
        size, start = data[1], 2
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
        if len(data) < start + size:
            return None
        self._unread = data[start + size :]
        return data[0] & 0x0F, data[start : start + size]

    def _on_frame(self, opcode: int, payload: bytes) -> None:
        assert self._transport is not None
        if opcode == _PING:
            self._transport.write(b"\x8a\x80\0\0\0\0")
        elif opcode == _CLOSE:
            self.closes += 1
        else:
            self._on_event(payload)

    def _on_event(self, text: bytes) -> None:
        event: dict[str, Any] = json.loads(text)
        data, channel = event["data"], f"user:{self.user}"
        if event["type"] == NAME:
            epoch, offset = self.cursor[channel]
            self.cursor[channel] = (epoch, max(offset, event["offset"]))
            self.repeated += data["seq"] < self.expected
            self.missing += max(0, data["seq"] - self.expected)
            self.expected = max(self.expected, data["seq"] + 1)
        elif event["type"] == "bus.gap":
            self.gaps += 1
        elif event["type"] in ("bus.subscribed", "bus.position"):
            self.cursor[data["channel"]] = (data["epoch"], data["offset"])
            if event["type"] == "bus.position":
                self._recovered.add(data["channel"])
            if {channel, "system"} <= self._recovered and self._ready is not None and not self._ready.done():
                self._ready.set_result(None)


async def _connect_limited(pages: Sequence[_Page], port: int) -> None:
    slots = asyncio.Semaphore(_IN_FLIGHT)

    async def connect(page: _Page) -> None:
        async with slots:
            await page.connect(port)

    await asyncio.gather(*map(connect, pages))


async def _connect_spread(pages: Sequence[_Page], port: int, seconds: float) -> None:
    async def connect(page: _Page) -> None:
        await asyncio.sleep(random.uniform(0, seconds))
        await page.connect(port)

    await asyncio.gather(*map(connect, pages))


def _publish_missed(bus: Bus, pages: Sequence[_Page], first: int, events: int) -> None:
    """Publish events to all users and wait until Redis has them."""
    for seq in range(first, first + events):
        for page in pages:
            bus.emit(page.user, OPERATION, Tick(seq=seq, at=time.time_ns() // 1000, pad=padding(page.user)))
        if not bus.flush(_LIMIT_S):
            raise RuntimeError("cannot publish: Redis does not have the events")


async def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("cannot continue: the events did not reach the pages")
        await asyncio.sleep(0.05)


async def _measure(pages: Sequence[_Page], port: int, pid: int, bus: Bus, events: int, over: float) -> dict[str, Any]:
    figures: dict[str, Any] = {}

    def since(cpu: Cpu, name: str) -> Cpu:
        now = cpu_of(pid)
        used = now.since(cpu)
        figures[f"{name}_cpu_s"], figures[f"{name}_system_s"] = used.total, used.system
        return now

    cpu = cpu_of(pid)
    await _connect_limited(pages, port)
    since(cpu, "open")
    # One event each, so that each channel has an epoch and each page a cursor.
    await asyncio.to_thread(_publish_missed, bus, pages, 0, 1)
    await _until(lambda: all(page.expected == 1 for page in pages))
    figures["resident_mb"] = resident_bytes(pid) / 2**20
    cpu = cpu_of(pid)
    for page in pages:
        page.cut()
    await asyncio.sleep(1)
    cpu = since(cpu, "cut")
    await asyncio.to_thread(_publish_missed, bus, pages, 1, events)
    cpu = cpu_of(pid)
    begin = time.monotonic()
    await _connect_spread(pages, port, over)
    figures["reconnect_s"] = time.monotonic() - begin
    since(cpu, "reconnect")
    figures["resident_after_mb"] = resident_bytes(pid) / 2**20
    figures["lost"] = sum(page.missing + max(0, 1 + events - page.expected) for page in pages)
    figures["repeated"] = sum(page.repeated for page in pages)
    figures["gaps"] = sum(page.gaps for page in pages)
    figures["closed"] = sum(page.closes for page in pages)
    for page in pages:
        page.cut()
    return figures


def _run(connections: int, events: int, over: float, log: Path) -> dict[str, Any]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
        redis = stack.enter_context(running_redis())
        launch = Launch(free_port(), redis.url, connections, folder / "progress")
        command = OURS.command(launch)
        errors = stack.enter_context(log.open("ab"))
        server = stack.enter_context(Child(command.argv, command.env, stderr=errors))
        wait_until_ready(server, launch.port, OURS.ready_path)
        bus = Bus(BusSettings(redis_url=redis.url))
        stack.callback(bus.close)
        expires = int(time.time()) + 3600
        pages = [
            _Page(number, jwt.encode({"sub": user_name(number), "exp": expires}, SECRET, algorithm="HS256"))
            for number in range(connections)
        ]
        return uvloop.run(_measure(pages, launch.port, server.pid, bus, events, over))


def main(
    *,
    connections: Annotated[int, typer.Option(help="Number of sessions, each of a separate user.", min=1)] = 10_000,
    events: Annotated[int, typer.Option(help="Number of events that each session misses.", min=0)] = 1,
    over: Annotated[float, typer.Option(help="Seconds over which the sessions reconnect.", min=0)] = 5.0,
) -> None:
    """Disconnect all sessions, let them reconnect with their cursors, and measure the gateway."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _RESULTS.mkdir(exist_ok=True)
    stem = f"reconnect-{time.strftime('%Y%m%d-%H%M%S')}"
    figures = _run(connections, events, over, _RESULTS / f"{stem}.log")
    for name, value in figures.items():
        _console.print(f"{name:>18} {value:10.3f}")
    document = {"machine": machine(), "connections": connections, "events": events, "over": over, **figures}
    (_RESULTS / f"{stem}.json").write_text(json.dumps(document, indent=1))
    _console.print(f"{machine()}. {connections} sessions, {events} events missed by each. bench/results/{stem}.json")
    sys.exit(1 if figures["lost"] or figures["repeated"] or figures["gaps"] or figures["closed"] else 0)


if __name__ == "__main__":
    typer.run(main)
