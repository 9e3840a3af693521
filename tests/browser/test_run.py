"""``python -m demo`` ends each process that it starts, and reports each failure in one line."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis

from demo.processes import free_port, responds
from tests.conftest import RedisServer, wait_until

ROOT = Path(__file__).parents[2]


class Run:
    """The demo in a separate session, with a separate directory for temporary files."""

    def __init__(self, temporary: Path, *options: str, **environment: str) -> None:
        temporary.mkdir()
        self.temporary = temporary
        self.port, self.gateway = free_port(), free_port()
        ports = ("--port", str(self.port), "--gateway-port", str(self.gateway))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "demo", *ports, *options],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(temporary), "EVENTBUS_REDIS_URL": "", **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._said = b""

    def says(self, text: str, seconds: float = 40) -> None:
        deadline = time.monotonic() + seconds
        assert self.process.stdout is not None
        while text.encode() not in self._said:
            readable, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(self.process.stdout.fileno(), 4096) if readable else b""
            if not chunk:
                pytest.fail(f"did not say {text!r}, but {self._said.decode()!r}")
            self._said += chunk

    def type(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def descendants(self) -> dict[int, str]:
        listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
        rows = [line.split(None, 2) for line in listed.splitlines()]
        family, found = {self.process.pid}, dict[int, str]()
        for _ in rows:
            fresh = {int(pid): args for pid, parent, args in rows if int(parent) in family and int(pid) not in family}
            if not fresh:
                break
            family |= fresh.keys()
            found |= fresh
        return found

    def ends(self, code: int, seconds: float = 15) -> str:
        """Assert the exit code and return the error output."""
        _, error = self.process.communicate(timeout=seconds)
        assert self.process.returncode == code, error.decode()
        return error.decode()

    def left(self) -> list[str]:
        return [path.name for path in self.temporary.iterdir()]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def index_something(run: Run) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{run.port}", trust_env=False) as client:
        client.post("/login").raise_for_status()
        started = client.post("/index", files={"files": ("a.txt", b"a text")}).raise_for_status().json()
        state = f"/operations/{started['operation']}"
        wait_until(lambda: client.get(state).json()["state"] == "ready", "the index")


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[list[Run]]:
    runs: list[Run] = []
    yield runs
    for run in runs:
        if run.process.poll() is None:
            run.process.terminate()
            run.process.communicate(timeout=20)


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path, runs: list[Run], own_redis: RedisServer) -> None:
    run = Run(tmp_path / "run", "--flower-port", str(free_port()), EVENTBUS_REDIS_URL=own_redis.url)
    runs.append(run)
    run.says("Ctrl-C")
    index_something(run)
    family = run.descendants()
    assert len(family) >= 6, family  # worker with two children, gateway, site, Flower
    run.type("g\n")
    run.says("press g and Enter to start it again")
    assert not responds(f"http://127.0.0.1:{run.gateway}/healthz")
    run.type("g\n")
    run.says("runs again")
    assert responds(f"http://127.0.0.1:{run.gateway}/readyz")
    run.process.send_signal(signal.SIGINT)
    assert run.ends(0) == ""
    wait_until(lambda: not [pid for pid in family if alive(pid)], "all processes to be gone", 2)
    assert run.left() == []
    for database in (0, 1):
        with redis.Redis.from_url(own_redis.url, db=database) as client:
            assert client.keys() == []


def test_what_nothing_works_without_takes_the_rest_with_it(tmp_path: Path, runs: list[Run]) -> None:
    run = Run(tmp_path / "run", "--no-flower")
    runs.append(run)
    run.says("Ctrl-C")
    family = run.descendants()
    site = next(pid for pid, args in family.items() if "demo.site" in args)
    os.kill(site, signal.SIGKILL)
    assert run.ends(1).startswith("demo: the site ended by SIGKILL\n")
    wait_until(lambda: not [pid for pid in family if alive(pid)], "all processes to be gone", 2)
    assert run.left() == []


def test_a_worker_that_is_killed_is_started_again(tmp_path: Path, runs: list[Run]) -> None:
    run = Run(tmp_path / "run", "--no-flower")
    runs.append(run)
    run.says("Ctrl-C")
    with httpx.Client(base_url=f"http://127.0.0.1:{run.port}", trust_env=False) as client:
        client.post("/login").raise_for_status()
        client.post("/worker/kill").raise_for_status()
    run.says("The Celery worker ended by SIGKILL; the demo starts it again in 6 s.")
    run.says("The Celery worker runs again.")
    index_something(run)
    run.process.send_signal(signal.SIGINT)
    assert run.ends(0) == ""
    assert run.left() == []


def test_a_port_that_is_taken(tmp_path: Path, runs: list[Run]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        run = Run(tmp_path / "run", "--flower-port", str(port))
        runs.append(run)
        complaint = run.ends(1)
    assert complaint.count("\n") == 1
    assert f"port {port} for Flower" in complaint
    assert "--flower-port" in complaint
    assert run.left() == []


def test_a_server_that_does_not_come_up(tmp_path: Path, runs: list[Run]) -> None:
    program = tmp_path / "redis-server"
    program.write_text("#!/bin/sh\necho no memory for so much\nexit 3\n")
    program.chmod(0o755)
    run = Run(tmp_path / "run", EVENTBUS_TEST_SERVER=str(program))
    runs.append(run)
    assert run.ends(1) == "demo: cannot start Redis: it ended with exit code 3\n  no memory for so much\n"
    assert run.left() == []


def test_a_redis_that_is_named_but_not_there(tmp_path: Path, runs: list[Run]) -> None:
    run = Run(tmp_path / "run", EVENTBUS_REDIS_URL=f"redis://:secret@127.0.0.1:{free_port()}/0")
    runs.append(run)
    complaint = run.ends(1)
    assert complaint == "demo: cannot reach the Redis server of EVENTBUS_REDIS_URL\n"
    assert run.left() == []


def test_ctrl_c_while_it_starts(tmp_path: Path, runs: list[Run]) -> None:
    run = Run(tmp_path / "run", "--no-flower")
    runs.append(run)
    wait_until(lambda: len(run.descendants()) >= 3, "the first processes")
    family = run.descendants()
    run.process.send_signal(signal.SIGTERM)
    run.ends(0)
    wait_until(lambda: not [pid for pid in family if alive(pid)], "all processes to be gone", 2)
    assert run.left() == []
