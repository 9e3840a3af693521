"""Starts a Redis: the program that the tests use, too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from bench.processes import Child, free_port, wait_until_ready
from eventbus.testing import server_binary

__all__ = ["RedisServer", "running_redis"]


class RedisServer(NamedTuple):
    """A running server."""

    url: str
    pid: int


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
