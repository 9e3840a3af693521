"""Child processes, each with a process group, a log file and a readiness check."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Child", "Interrupted", "NotRunning", "Program", "end_all", "free_port", "require_free", "responds"]

_POLL: Final = 0.05
_LOG_LINES: Final = 12


class NotRunning(Exception):
    """A process did not start, or has ended. ``log`` has the last lines of its log file."""

    def __init__(self, message: str, log: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.log = log
        for line in log:
            self.add_note(line)


class Interrupted(Exception):
    """The user stopped the demo while it was starting."""


@dataclass(frozen=True, slots=True)
class Program:
    """A command and its readiness check. ``within`` is the time limit of the start in seconds."""

    name: str
    argv: Sequence[str]
    ready: Callable[[], bool]
    environment: Mapping[str, str]
    within: float = 30.0


class Child:
    """One run of a program."""

    def __init__(self, program: Program, log: Path, directory: Path) -> None:
        self.program = program
        self.log = log
        with log.open("ab") as output:
            try:
                # With a new session, Ctrl-C reaches only the parent, which stops the children in order.
                self._process = subprocess.Popen(
                    program.argv,
                    env={**os.environ, **program.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=directory,
                    start_new_session=True,
                )
            except OSError as error:
                raise NotRunning(f"cannot start {program.name}: {error}") from error

    @property
    def pid(self) -> int:
        """The id of the process and of its group."""
        return self._process.pid

    @property
    def ended(self) -> str:
        """How the process ended. Empty while it runs."""
        code = self._process.poll()
        if code is None:
            return ""
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    @property
    def killed(self) -> bool:
        """Whether a SIGKILL ended the process."""
        return self._process.poll() == -signal.SIGKILL

    def wait_ready(self, stop: threading.Event) -> None:
        """Wait until the process is ready.

        Raises:
            NotRunning: the process ended, or was not ready in time.
            Interrupted: ``stop`` was set.
        """
        deadline = time.monotonic() + self.program.within
        while not self.program.ready():
            if self.ended:
                raise NotRunning(f"cannot start {self.program.name}: it {self.ended}", self.last_lines())
            if time.monotonic() > deadline:
                message = f"cannot start {self.program.name}: it is not ready after {self.program.within:.0f} s"
                raise NotRunning(message, self.last_lines())
            if stop.wait(_POLL):
                raise Interrupted

    def last_lines(self) -> list[str]:
        """Return the last lines of the log file."""
        with contextlib.suppress(OSError):
            return self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        return []

    def send(self, signal_: signal.Signals) -> None:
        """Send a signal to the process only. A prefork worker forwards it to its children."""
        if self._process.poll() is None:
            self._process.send_signal(signal_)

    def kill(self) -> None:
        """Kill the process group. Does not wait, so a signal handler may call it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def end(self, grace: float = 5.0) -> None:
        """Send SIGTERM, wait ``grace`` seconds, then kill the process group."""
        self.send(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace)
        self.kill()
        self._process.wait()


def end_all(children: Iterable[Child], grace: float = 5.0) -> None:
    """Stop all children in parallel, within ``grace`` seconds."""
    running = list(children)
    deadline = time.monotonic() + grace
    for child in running:
        child.send(signal.SIGTERM)
    for child in running:
        child.end(max(0.0, deadline - time.monotonic()))


def free_port() -> int:
    """Return a free port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def require_free(port: int, what: str, option: str) -> None:
    """Check that a port is free. Raises NotRunning if another program listens on it."""
    with socket.socket() as probe:
        # Servers set this too: a connection in TIME_WAIT of an earlier run does not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            message = f"cannot use port {port} for {what}: {error.strerror}; choose another with {option}"
            raise NotRunning(message) from error


def responds(url: str) -> bool:
    """Whether a GET request to the URL returns status 200."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False
