"""Processes that a test stops for a while."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from eventbus.testing.redis_server import RedisServer

__all__ = ["stopped"]


@contextmanager
def stopped(*servers: RedisServer) -> Iterator[None]:
    """Stop processes: they keep their connections, and answer nothing.

    Args:
        servers: running servers.
    """
    for server in servers:
        assert server.process is not None
        server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for server in servers:
            assert server.process is not None
            server.process.send_signal(signal.SIGCONT)
