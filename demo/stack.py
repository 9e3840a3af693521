"""The processes of the demo and the environment of each."""

from __future__ import annotations

import secrets
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import redis
from celery import Celery

from demo.fault_injection import requeue_unacknowledged
from demo.processes import Child, NotRunning, Program, end_all, require_free, responds
from demo.redis_server import broker_url, delete_keys, pings, server_program
from demo.settings import CLIENT
from demo.visitors import GATEWAY

__all__ = ["LEASE", "Ports", "Stack"]

ROOT: Final = Path(__file__).parent.parent
# Seconds of a task's lease. The gateway checks leases twice a second.
LEASE: Final = 3.0


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of the demo. ``flower=None`` means no Flower."""

    site: int = 8000
    gateway: int = 8001
    flower: int | None = 5555

    def require_free(self) -> None:
        """Check all ports before any process starts. Raises NotRunning."""
        require_free(self.site, "the site", "--port")
        require_free(self.gateway, "the gateway", "--gateway-port")
        if self.flower is not None:
            require_free(self.flower, "Flower", "--flower-port or --no-flower")


class Stack:
    """All processes, files and keys of one run. As a context manager it removes them at the end.

    Attributes:
        stop: set this event to abort ``start``.
        children: the started processes by name.
    """

    def __init__(self, ports: Ports, *, redis_url: str = "", environment: Mapping[str, str] | None = None) -> None:
        """Prepare a run.

        Args:
            ports: the ports to listen on.
            redis_url: an existing server. Empty: the stack starts one.
            environment: additional variables for all child processes.
        """
        self.ports = ports
        self.stop = threading.Event()
        self.children: dict[str, Child] = {}
        self.redis_url = redis_url
        self.prefix = f"demo-{secrets.token_hex(4)}"
        # True after the existing server has answered: it may then have keys of this run.
        self._given_redis = False
        self._extra = environment or {}

    def __enter__(self) -> Self:
        self.directory = Path(tempfile.mkdtemp(prefix="eventbus-demo-"))
        return self

    def __exit__(self, *_: object) -> None:
        # The server stops last, because the others use it until they end.
        server = self.children.pop("Redis", None)
        end_all(self.children.values())
        if server is not None:
            server.end(grace=2)
        elif self._given_redis:
            self._delete_keys()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self) -> None:
        """Start all processes and wait until they are ready. Raises NotRunning, Interrupted."""
        if not CLIENT.is_file():
            raise NotRunning("cannot start the site: the browser client is not built; run make client")
        self.ports.require_free()
        self._start_redis()
        self._environment = self._child_environment()
        programs = [self._worker(), self._gateway(), self._site()]
        if self.ports.flower is not None:
            programs.append(self._flower(self.ports.flower))
        for program in programs:
            self._run(program)
        for program in programs:
            self.children[program.name].wait_ready(self.stop)

    def start_gateway(self) -> None:
        """Start the gateway again."""
        require_free(self.ports.gateway, "the gateway", "--gateway-port")
        self._run(self._gateway())
        self.children["gateway"].wait_ready(self.stop)

    def start_worker(self) -> None:
        """Start the killed worker again. Its unfinished tasks run again."""
        self.children["Celery worker"].end(grace=0)
        requeue_unacknowledged(self.broker, self.prefix)
        self._run(self._worker())
        self.children["Celery worker"].wait_ready(self.stop)

    def stop_gateway(self, signal_: signal.Signals = signal.SIGTERM) -> None:
        """Stop only the gateway."""
        child = self.children["gateway"]
        child.send(signal_)
        child.end()

    def kill_all(self) -> None:
        """Kill all processes."""
        for child in list(self.children.values()):
            child.kill()

    @property
    def url(self) -> str:
        """The URL of the page."""
        return f"http://127.0.0.1:{self.ports.site}/"

    @property
    def broker(self) -> str:
        """The URL of Celery's database."""
        return broker_url(self.redis_url)

    @property
    def redis_shown(self) -> str:
        """The address of the Redis server without its password."""
        return self.redis_url.rpartition("@")[2] or self.redis_url

    def _start_redis(self) -> None:
        if self.redis_url:
            if not pings(self.redis_url):
                raise NotRunning("cannot reach the Redis server of EVENTBUS_REDIS_URL")
            self._given_redis = True
            return
        program, self.redis_url = server_program(self.directory)
        self._run(program)
        self.children["Redis"].wait_ready(self.stop)

    def _run(self, program: Program) -> None:
        name = program.name
        self.children[name] = Child(program, self.directory / f"{name.lower().replace(' ', '-')}.log", ROOT)

    def _child_environment(self) -> dict[str, str]:
        secret = secrets.token_urlsafe(32)
        site = self.ports.site
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        return {
            "EVENTBUS_REDIS_URL": self.redis_url,
            "EVENTBUS_KEY_PREFIX": self.prefix,
            "DEMO_DATA": str(data),
            "DEMO_SECRET": secret,
            "DEMO_BROKER": self.broker,
            "DEMO_PREFIX": self.prefix,
            "DEMO_GATEWAY_PORT": str(self.ports.gateway),
            "DEMO_FLOWER_PORT": str(self.ports.flower or 0),
            # The site listens on the loopback interface, and the worker belongs to this run.
            "DEMO_TROUBLE": "1",
            # The default detects a dead worker after half a minute, which is long for a demo.
            "EVENTBUS_WORKER_LEASE": str(LEASE),
            "EVENTBUS_WORKER_CANCEL_POLL": "0.2",
            "WEBUI_SWEEP_INTERVAL": "0.5",
            "WEBUI_SWEEP_LEASE": "5",
            "WEBUI_LEASE_GRACE": str(LEASE),
            "WEBUI_PORT": str(self.ports.gateway),
            "WEBUI_JWT_SECRET": secret,
            "WEBUI_JWT_AUDIENCE": GATEWAY,
            # The gateway refuses connections from pages of other origins.
            "WEBUI_ALLOWED_ORIGINS": f"http://127.0.0.1:{site},http://localhost:{site}",
            # A demo has few pages, so they may all reconnect at the same time.
            "WEBUI_DRAIN_SPREAD": "0.2",
            "WEBUI_SHUTDOWN_GRACE": "2",
            "PYTHONUNBUFFERED": "1",
            # A killed process does not remove its temporary files.
            "TMPDIR": str(self.directory),
            **self._extra,
        }

    def _python(self, name: str, *arguments: str, ready: str = "") -> Program:
        argv = [sys.executable, "-m", *arguments]
        return Program(name, argv, (lambda: responds(ready)) if ready else self._worker_is_ready, self._environment)

    def _gateway(self) -> Program:
        ready = f"http://127.0.0.1:{self.ports.gateway}/readyz"
        return self._python("gateway", "webui_adapter", ready=ready)

    def _site(self) -> Program:
        port = str(self.ports.site)
        arguments = ("uvicorn", "--factory", "demo.site:create_app", "--port", port, "--no-access-log")
        return self._python("site", *arguments, ready=f"http://127.0.0.1:{port}/healthz")

    def _worker(self) -> Program:
        arguments = ("worker", "--concurrency", "2", "--events", "--loglevel", "INFO", "--hostname", self._worker_name)
        return self._python("Celery worker", "celery", "--app", "demo.tasks", *arguments)

    def _flower(self, port: int) -> Program:
        # Flower has no authentication, so it listens on the loopback interface.
        arguments = ("flower", "--address=127.0.0.1", f"--port={port}")
        ready = f"http://127.0.0.1:{port}/healthcheck"
        return self._python("Flower", "celery", "--app", "demo.tasks", *arguments, ready=ready)

    @property
    def _worker_name(self) -> str:
        return f"{self.prefix}@localhost"

    def _worker_is_ready(self) -> bool:
        keys = {"global_keyprefix": f"{self.prefix}:"}
        with Celery(broker=self.broker, set_as_current=False) as app:
            app.conf.broker_transport_options = keys
            found = app.control.ping(destination=[self._worker_name], timeout=0.5, limit=1)
        return bool(found)

    def _delete_keys(self) -> None:
        for url in (self.redis_url, self.broker):
            try:
                delete_keys(url, self.prefix)
            except redis.RedisError as error:
                sys.stderr.write(f"demo: cannot delete keys {self.prefix}:* of {self.redis_shown}: {error}\n")
