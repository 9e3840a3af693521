"""Child processes: their start, their CPU time, and commands and replies as lines."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import IO, Any, NamedTuple, Self

__all__ = ["Child", "ChildError", "Cpu", "cpu_of", "free_port", "resident_bytes", "wait_until_ready"]

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_END_SECONDS = 5.0


class ChildError(RuntimeError):
    """A child process ended or did not reply in time."""


class Cpu(NamedTuple):
    """CPU time of a process with all its threads, in seconds.

    The total is exact. The split into user and system has the resolution of the kernel's tick, usually 10 ms.
    """

    user: float
    system: float
    total: float

    def since(self, earlier: Cpu) -> Cpu:
        return Cpu(self.user - earlier.user, self.system - earlier.system, self.total - earlier.total)


def cpu_of(pid: int) -> Cpu:
    """Return the CPU time of a process so far."""
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - read often
        fields = file.read().rpartition(")")[2].split()
    # The id of the CPU clock of another process, as in clock_getcpuclockid(3).
    return Cpu(int(fields[11]) / _TICKS, int(fields[12]) / _TICKS, time.clock_gettime((~pid << 3) | 2))


def resident_bytes(pid: int) -> int:
    """Return the resident set of a process, without the socket buffers of the kernel."""
    with open(f"/proc/{pid}/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * _PAGE


def free_port() -> int:
    """Return a free port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Child:
    """A process that reads commands as lines and replies with lines of JSON. Stops at the end of the `with` block."""

    def __init__(
        self, argv: Sequence[str], env: Mapping[str, str] | None = None, *, stderr: IO[bytes] | None = None
    ) -> None:
        self._argv = argv
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, env={**os.environ, **(env or {})}
        )
        self._unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def send(self, line: str) -> None:
        """Send a command."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise ChildError(f"cannot send a command: {self._argv[0]} has ended") from error

    def receive(self, seconds: float = 30.0) -> dict[str, Any]:
        """Return the next reply. Raises ChildError if none arrives within `seconds`."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        while b"\n" not in self._unread:
            readable, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            got = os.read(self._process.stdout.fileno(), 65536) if readable else b""
            if not got:
                raise ChildError(
                    f"{' '.join(self._argv)}: {'the process ended' if readable else f'no reply within {seconds:.0f} s'}"
                )
            self._unread += got
        line, _, self._unread = self._unread.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def request(self, line: str, seconds: float = 30.0) -> dict[str, Any]:
        """Send a command and return its reply."""
        self.send(line)
        return self.receive(seconds)

    def end(self) -> None:
        """Terminate the process, or kill it after a timeout."""
        self._process.terminate()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue


def _is_ready(port: int, path: str | None) -> bool:
    try:
        if path is None:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return True
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def wait_until_ready(child: Child, port: int, path: str | None = None, seconds: float = 20.0) -> None:
    """Wait until the child accepts connections, or `path` returns status 200. Raises ChildError."""
    deadline = time.monotonic() + seconds
    while not _is_ready(port, path):
        if not child.running:
            raise ChildError("cannot start the server: it ended before it was ready")
        if time.monotonic() > deadline:
            raise ChildError(f"cannot start the server: it was not ready within {seconds:.0f} s")
        time.sleep(0.02)
