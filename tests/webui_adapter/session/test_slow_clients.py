"""Browsers that do not keep up: they cost themselves only, and lose nothing that was to be kept."""

from __future__ import annotations

import asyncio
import contextlib
import time

from eventbus import Bus
from tests.webui_adapter.events import Alarm, Blip, Crumb, Note, Progress
from tests.webui_adapter.gateways import GatewayProcess, RawWebSocket, eventually, page, token
from tests.webui_adapter.page import Page

PAD = "x" * 400


def bearer(user: str) -> str:
    return f"Authorization: Bearer {token(user)}\r\n"


def flood(bus: Bus, user: str, start: int, count: int) -> None:
    """Events of all lanes and kinds over several operations; ``Note`` and ``Crumb`` are the log."""
    for n in range(start, start + count):
        operation = f"op{n % 5}"
        bus.emit(user, operation, Note(n=n, pad=PAD) if n % 2 else Crumb(n=n, pad=PAD))
        bus.emit(user, operation, Progress(done=n, part=operation))
        bus.emit(user, operation, Blip(n=n, pad=PAD))
        if n % 100 == 0:
            bus.emit(user, "urgent", Alarm(n=n))
    assert bus.flush(20)


def fill(gateway: GatewayProcess, bus: Bus, user: str) -> None:
    """Fill the buffers of both kernels with events that no client would miss, until a page counts as slow."""
    deadline = time.monotonic() + 20
    while gateway.metrics()["eventbus_slow_sessions"] < 1:
        assert time.monotonic() < deadline, "the kernel takes everything"
        for n in range(60):
            bus.emit(user, "filler", Blip(n=n, pad="x" * 8000))
        assert bus.flush(10)


def hear_all(raw: RawWebSocket, model: Page, until: int | None = None) -> int | None:
    """Hear what comes, answering pings, until an event says ``until``; the close code if it ends before."""
    deadline = time.monotonic() + 25
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            assert time.monotonic() < deadline, f"waited without success for {until}; last: {model.control_events[-3:]}"
            opcode, payload = raw.frame()
            if opcode == 9:
                raw.send(10, payload)
            elif opcode == 8:
                return int.from_bytes(payload[:2], "big")
            elif opcode == 1:
                frame = model.receive(payload)
                if until is not None and frame["data"].get("n") == until and frame["type"] == "gw.alarm":
                    return None
    return 1006


async def hear_in_thread(raw: RawWebSocket, model: Page, until: int | None = None) -> int | None:
    return await asyncio.to_thread(hear_all, raw, model, until)


def check(model: Page, count: int) -> None:
    """Each log event once; in order within each operation; of states the newest at last."""
    ids = [event["id"] for event in model.events]
    assert len(ids) == len(set(ids)), "twice"
    seen = sorted(model.got("gw.note") + model.got("gw.crumb"))
    assert seen == list(range(count)), f"{len(seen)} of {count}"
    for topic in {event["topic"] for event in model.events}:
        offsets = [event["offset"] for event in model.events if event["topic"] == topic]
        assert offsets == sorted(offsets)
    states = {event["data"]["part"]: event["data"]["done"] for event in model.events if event["type"] == "gw.progress"}
    assert states == {f"op{i}": count - 5 + i for i in range(5)}


async def test_a_slow_page_catches_up_without_delaying_others(gateway: GatewayProcess, user: str, bus: Bus) -> None:
    slow = RawWebSocket(gateway, bearer(user), receive_buffer=4096)
    slow.head()
    model = Page()
    while len(model.data_of("bus.position")) < 2:
        model.receive(slow.frame()[1])
    memory = gateway.memory()
    fill(gateway, bus, user)
    async with page(gateway, user) as brisk_page:
        for step in range(4):
            flood(bus, user, step * 250, 250)
            bus.emit(user, "mark", Alarm(n=-1 - step))
            await brisk_page.until(lambda p: p.got("gw.alarm")[-1:] == [-1 - step])  # noqa: B023 - waited for here
        check(brisk_page.page, 1000)
        samples = gateway.metrics()
        assert samples["eventbus_slow_sessions"] >= 1
        assert 0 < samples["eventbus_outbox_depth"] <= 10_000
        assert samples['eventbus_dropped_total{reason="merged"}'] > 0
        assert gateway.memory() - memory < 24_000_000
        assert (await brisk_page.request(do="ping"))["type"] == "bus.ok"
    bus.emit(user, "op0", Alarm(n=10**6))
    bus.flush(10)
    await hear_in_thread(slow, model, until=10**6)
    async with page(gateway, user, model) as back:
        await back.request(do="ping")
    check(model, 1000)
    types = [event["type"] for event in model.control_events]
    assert "bus.gap" not in types
    slow.close()


async def test_hold_and_release_of_a_slow_page(gateway: GatewayProcess, user: str, bus: Bus) -> None:
    slow = RawWebSocket(gateway, bearer(user), receive_buffer=4096)
    slow.head()
    model = Page()
    while len(model.data_of("bus.position")) < 2:
        model.receive(slow.frame()[1])
    fill(gateway, bus, user)
    for n in range(1000):
        bus.emit(user, f"op{n % 5}", Crumb(n=n, pad=PAD))
    assert bus.flush(10)
    bus.emit(user, "urgent", Alarm(n=1))
    assert bus.flush(10)
    await hear_in_thread(slow, model, until=1)
    assert model.data_of("bus.hold"), "the alarm has overtaken"
    held = model.data_of("bus.hold")[-1]["offset"]
    assert model.positions[f"user:{user}"].offset == held
    assert len(model.got("gw.crumb")) < 1000
    bus.emit(user, "op0", Alarm(n=2))
    bus.flush(10)
    await hear_in_thread(slow, model, until=2)
    while not model.data_of("bus.release"):
        opcode, payload = slow.frame()
        if opcode == 1:
            model.receive(payload)
    assert sorted(model.got("gw.crumb")) == list(range(1000))
    slow.close()


async def test_a_page_past_its_bounds_reads_the_rest_from_the_log(gateway: GatewayProcess, user: str, bus: Bus) -> None:
    """Events that do not fit into memory are not kept there, and no client is closed for it."""
    slow = RawWebSocket(gateway, bearer(user), receive_buffer=4096)
    slow.head()
    model = Page()
    while len(model.data_of("bus.position")) < 2:
        opcode, payload = slow.frame()
        if opcode == 1:
            model.receive(payload)
    fill(gateway, bus, user)
    before = gateway.memory()
    async with page(gateway, f"{user}b") as other:
        for n in range(6000):
            bus.emit(user, f"op{n % 5}", Note(n=n, pad=PAD))
            bus.emit(user, f"op{n % 5}", Progress(done=n, part=f"op{n % 5}"))
        bus.emit(f"{user}b", "op", Note(n=1))
        assert bus.flush(20)
        await other.until(lambda page: page.got("gw.note") == [1], "what the slow one does not hold up")
    assert gateway.metrics()["eventbus_behind_total"] >= 1
    assert gateway.memory() - before < 8_000_000
    bus.emit(user, "end", Alarm(n=1))
    assert bus.flush(10)
    assert await hear_in_thread(slow, model, until=1) is None, "it was not closed"
    check(model, 6000)
    slow.close()


async def test_a_page_that_reads_nothing_is_closed_in_time(brisk: GatewayProcess, user: str, bus: Bus) -> None:
    """It answers nothing and reads nothing: by 4001 or 4002, and its place is free."""
    stuck = RawWebSocket(brisk, bearer(user), receive_buffer=4096)
    stuck.head()
    before = brisk.metrics()
    fill(brisk, bus, user)

    def closed() -> float:
        after = brisk.metrics()
        names = [f'eventbus_disconnects_total{{code="{code}"}}' for code in (4001, 4002)]
        return sum(after.get(name, 0) - before.get(name, 0) for name in names)

    await eventually(closed, "the gateway to close it", 30)
    stuck.close()


async def test_a_slow_stream_over_sse_loses_nothing(gateway: GatewayProcess, user: str, bus: Bus) -> None:
    import json  # noqa: PLC0415 - read next to its use
    import socket  # noqa: PLC0415

    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.settimeout(15)
    await asyncio.to_thread(peer.connect, ("127.0.0.1", gateway.port))
    peer.sendall(f"GET /eventbus/sse HTTP/1.1\r\nHost: x\r\n{bearer(user)}\r\n".encode())
    received = b""
    while received.count(b"event: bus.position") < 2:
        received += peer.recv(4096)
    fill(gateway, bus, user)
    for n in range(600):
        bus.emit(user, f"op{n % 5}", Crumb(n=n, pad=PAD) if n % 3 else Note(n=n, pad=PAD))
        bus.emit(user, f"op{n % 5}", Progress(done=n, part=f"op{n % 5}"))
    bus.emit(user, "urgent", Alarm(n=1))
    assert bus.flush(10)

    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_000_000)

    def read_on() -> bytes:
        found = received
        while b"gw.alarm" not in found or found.count(b"event: bus.hold") > found.count(b"event: bus.release"):
            found += peer.recv(65536)
        return found

    text = await asyncio.to_thread(read_on)
    peer.close()
    model = Page()
    # Chunks of HTTP: lines that are a length, in between.
    for line in text.replace(b"\r\n", b"\n").split(b"\n"):
        if line.startswith(b"data: "):
            with contextlib.suppress(json.JSONDecodeError):
                model.receive(line[6:])
    async with page(gateway, user, model) as back:
        await back.request(do="ping")
    seen = sorted(model.got("gw.note") + model.got("gw.crumb"))
    assert seen == list(range(600))
    states = {event["data"]["part"]: event["data"]["done"] for event in model.events if event["type"] == "gw.progress"}
    assert states == {f"op{i}": 595 + i for i in range(5)}
