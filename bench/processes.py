"""Child processes: how to start them, what the kernel says they used, how to speak with them in lines."""

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
    """A child ended, or was silent for too long."""


class Cpu(NamedTuple):
    """CPU time of a process with all its threads, in seconds.

    The total is exact; how it is split into user and system is known in steps of the kernel's tick (usually 10 ms).
    """

    user: float
    system: float
    total: float

    def since(self, earlier: Cpu) -> Cpu:
        return Cpu(self.user - earlier.user, self.system - earlier.system, self.total - earlier.total)


def cpu_of(pid: int) -> Cpu:
    """What the process has used so far."""
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - read often
        fields = file.read().rpartition(")")[2].split()
    # The CPU clock of another process, as clock_getcpuclockid(3) makes its number.
    return Cpu(int(fields[11]) / _TICKS, int(fields[12]) / _TICKS, time.clock_gettime((~pid << 3) | 2))


def resident_bytes(pid: int) -> int:
    """Resident set of the process, without what the kernel keeps for its sockets."""
    with open(f"/proc/{pid}/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * _PAGE


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Child:
    """A process that takes commands as lines on stdin and answers with lines of JSON. Ends with the `with` block."""

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
            raise ChildError(f"{self._argv[0]} has ended") from error

    def receive(self, seconds: float = 30.0) -> dict[str, Any]:
        """The next answer. Raises ChildError if none comes within `seconds`."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        while b"\n" not in self._unread:
            readable, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            got = os.read(self._process.stdout.fileno(), 65536) if readable else b""
            if not got:
                raise ChildError(
                    f"{' '.join(self._argv)}: {'ended' if readable else f'no answer within {seconds:.0f} s'}"
                )
            self._unread += got
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def request(self, line: str, seconds: float = 30.0) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self.send(line)
        return self.receive(seconds)

    def end(self) -> None:
        """Terminate, kill if that does not help."""
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
    """Return when the child accepts connections, or when `path` answers 200. Raises ChildError."""
    deadline = time.monotonic() + seconds
    while not _is_ready(port, path):
        if not child.running:
            raise ChildError("the server ended before it was ready")
        if time.monotonic() > deadline:
            raise ChildError(f"the server was not ready within {seconds:.0f} s")
        time.sleep(0.02)
