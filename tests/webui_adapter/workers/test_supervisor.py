"""Several workers on one port: real processes, real signals."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from eventbus import Bus
from tests.conftest import wait_until
from tests.webui_adapter.events import Note
from tests.webui_adapter.gateways import GatewayProcess, check_log, eventually, page, token
from tests.webui_adapter.transports.test_sse_commands import streaming

WORKERS = 2


class Workers(GatewayProcess):
    """``python -m webui_adapter`` with several workers."""

    def pids(self) -> dict[str, int]:
        """Process ids of the workers, by number."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        places = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in children}
        return {str(json.loads(arguments[-2])["number"]): int(pid) for pid, arguments in places.items()}

    def all_ready(self) -> bool:
        """Whether each worker is ready."""
        with contextlib.suppress(httpx.TransportError):
            answer = self.get("/readyz").json()
            return list(answer.get("workers", {}).values()) == [None] * WORKERS
        return False


@pytest.fixture
def workers(tmp_path: Path, redis_url: str, key_prefix: str) -> Iterator[Workers]:
    own = Workers(tmp_path, redis_url, key_prefix, workers=WORKERS, instance="w", drain_spread=0.5, shutdown_grace=1.0)
    own.start()
    try:
        wait_until(own.all_ready, "all workers", 60)
        yield own
    finally:
        if own.process is not None and own.process.poll() is None:
            own.signal(signal.SIGTERM)
            own.wait()
        own.stop()


def gone(pid: int) -> bool:
    """Whether a process has ended; one that its parent has not waited for counts."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def test_pages_of_all_workers(workers: Workers, bus: Bus, user: str) -> None:
    """Connections are spread, each page gets its events, and any worker answers for all."""
    count = 40
    async with contextlib.AsyncExitStack() as stack:
        pages = [await stack.enter_async_context(page(workers, f"{user}-{n}")) for n in range(count)]
        instances = Counter(client.page.data_of("bus.hello")[0]["instance"] for client in pages)
        assert set(instances) == {"w-1", "w-2"}
        assert min(instances.values()) >= count // 8, "the kernel spreads by a hash of the addresses"
        for n in range(count):
            bus.emit(f"{user}-{n}", "op", Note(n=n))
        bus.flush(10)
        for n, client in enumerate(pages):
            await client.until(lambda p, n=n: p.got("gw.note") == [n])
        for _ in range(8):  # each request may be answered by another worker
            metrics = workers.metrics()
            assert sum(metrics[f'eventbus_connections{{worker="{n}"}}'] for n in (1, 2)) == count
            assert metrics['eventbus_worker_up{worker="1"}'] == metrics['eventbus_worker_up{worker="2"}'] == 1


async def test_commands_of_a_stream_reach_its_worker(workers: Workers, user: str) -> None:
    """Each command has a separate connection, so the kernel sends it to any worker."""
    async with streaming(workers, user) as stream:
        session = stream.page.data_of("bus.hello")[0]["session"]
        url = f"{workers.http}{workers.prefix}/sessions/{session}/commands"
        for n in range(24):
            headers = {"Authorization": f"Bearer {token(user)}", "Connection": "close"}
            async with httpx.AsyncClient(timeout=10) as client:
                response = await client.post(url, content=json.dumps({"do": "ping", "ref": n}), headers=headers)
            assert response.status_code == 202
        await stream.until(lambda p: len(p.data_of("bus.ok")) == 24, "the answers")
        assert sorted(d["ref"] for d in stream.page.data_of("bus.ok")) == list(range(24))


async def test_a_killed_worker_is_replaced(workers: Workers, user: str) -> None:
    """Pages of the other worker notice nothing, and no connection is refused meanwhile."""
    async with contextlib.AsyncExitStack() as stack:
        pages = [await stack.enter_async_context(page(workers, f"{user}-{n}")) for n in range(12)]
        before = workers.pids()
        os.kill(before["1"], signal.SIGKILL)
        said = "worker 1 ended with code -9; it starts again in 0.0 s"
        await eventually(lambda: said in workers.log.read_text(), "the end of all its threads, and of its socket")
        stay = [client for client in pages if client.page.data_of("bus.hello")[0]["instance"] == "w-2"]
        opened = await asyncio.gather(*(stack.enter_async_context(page(workers, f"{user}-b{n}")) for n in range(12)))
        assert len(opened) == 12
        await eventually(workers.all_ready, "the new worker", 60)
        after = workers.pids()
        assert after["2"] == before["2"]
        assert after["1"] != before["1"]
        for client in stay:
            await client.send(do="ping", ref="still here")
            await client.until(lambda p: {"ref": "still here"} in p.data_of("bus.ok"))


async def test_sigterm_drains_all(workers: Workers, user: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        pages = [await stack.enter_async_context(page(workers, f"{user}-{n}")) for n in range(8)]
        pids = workers.pids()
        workers.signal(signal.SIGTERM)
        for client in pages:
            await client.until(lambda p: p.data_of("bus.drain"))
    assert workers.wait() == 0
    assert all(map(gone, pids.values()))
    check_log(workers.log.read_text())


async def test_a_second_signal_ends_immediately(workers: Workers, user: str) -> None:
    async with page(workers, user) as client:
        workers.signal(signal.SIGINT)
        await client.until(lambda p: p.data_of("bus.drain"))
        workers.signal(signal.SIGINT)
        assert workers.wait() == 0


def test_workers_end_with_their_supervisor(workers: Workers) -> None:
    pids = workers.pids()
    workers.process.kill()
    workers.process.wait()
    wait_until(lambda: all(map(gone, pids.values())), "the workers' end", 30)


def run(**environment: object) -> subprocess.CompletedProcess[str]:
    settings = {**os.environ, "WEBUI_WORKERS": "2", "WEBUI_JWT_SECRET": "s" * 32} | {
        name: str(value) for name, value in environment.items()
    }
    command = [sys.executable, "-m", "webui_adapter"]
    return subprocess.run(command, env=settings, capture_output=True, text=True, timeout=60, check=False)


def test_a_wrong_setting_ends_all(redis_url: str) -> None:
    result = run(EVENTBUS_REDIS_URL=redis_url, WEBUI_PORT=0, WEBUI_EVENTS="no.such.module")
    assert result.returncode == 2
    assert "WEBUI_EVENTS" in result.stderr


def test_a_port_that_is_taken(workers: Workers, redis_url: str) -> None:
    """A second supervisor must not share the port, although the workers of one do."""
    result = run(EVENTBUS_REDIS_URL=redis_url, WEBUI_PORT=workers.port)
    assert result.returncode == 3
    assert f"cannot listen on 127.0.0.1 port {workers.port} (WEBUI_HOST, WEBUI_PORT)" in result.stderr
    assert workers.all_ready()
