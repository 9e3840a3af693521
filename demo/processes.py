"""Child processes that end together: each in a group of its own, with a log, and a way to know that it is ready."""

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
    """Something does not come up, or is gone. The message is one line; ``log`` is the end of the culprit's log."""

    def __init__(self, message: str, log: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.log = log
        for line in log:
            self.add_note(line)


class Interrupted(Exception):
    """Somebody wants all of it to end while it is still coming up."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to run, and how to know that it works."""

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
                # A session of its own: Ctrl-C in the terminal is for the parent, which then ends the children in order.
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
                raise NotRunning(f"{program.name} cannot be run: {error}") from error

    @property
    def pid(self) -> int:
        """Of the process, and of its group."""
        return self._process.pid

    @property
    def ended(self) -> str:
        """How it ended; empty while it runs."""
        code = self._process.poll()
        if code is None:
            return ""
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    @property
    def killed(self) -> bool:
        """Whether it was killed, by us or by somebody else."""
        return self._process.poll() == -signal.SIGKILL

    def wait_ready(self, stop: threading.Event) -> None:
        """Return when it answers.

        Raises:
            NotRunning: it ended, or took too long.
            Interrupted: ``stop`` was set.
        """
        deadline = time.monotonic() + self.program.within
        while not self.program.ready():
            if self.ended:
                raise NotRunning(f"{self.program.name} {self.ended} while it was starting", self.last_lines())
            if time.monotonic() > deadline:
                message = f"{self.program.name} is not ready after {self.program.within:.0f} s"
                raise NotRunning(message, self.last_lines())
            if stop.wait(_POLL):
                raise Interrupted

    def last_lines(self) -> list[str]:
        """The end of its log."""
        with contextlib.suppress(OSError):
            return self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        return []

    def send(self, signal_: signal.Signals) -> None:
        """To the process alone: a prefork worker tells its children itself."""
        if self._process.poll() is None:
            self._process.send_signal(signal_)

    def kill(self) -> None:
        """End the whole group, also what its leader has left behind. Does not wait: a signal handler may call it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def end(self, grace: float = 5.0) -> None:
        """Ask it to end, wait, and then do not ask any more."""
        self.send(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace)
        self.kill()
        self._process.wait()


def end_all(children: Iterable[Child], grace: float = 5.0) -> None:
    """End children, all at once, within ``grace`` seconds."""
    running = list(children)
    deadline = time.monotonic() + grace
    for child in running:
        child.send(signal.SIGTERM)
    for child in running:
        child.end(max(0.0, deadline - time.monotonic()))


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def require_free(port: int, what: str, option: str) -> None:
    """Raises NotRunning where somebody listens on the port: it would answer in our program's place."""
    with socket.socket() as probe:
        # As servers do, so that a connection of a former run in TIME_WAIT is no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            message = f"port {port} for {what} cannot be had ({error.strerror}); choose another with {option}"
            raise NotRunning(message) from error


def responds(url: str) -> bool:
    """Whether an address answers with success."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False
