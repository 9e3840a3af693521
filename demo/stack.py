"""All of the demo: which processes there are, and what each is told about the others."""

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
# Seconds within which a running task's worker is heard of; the gateway looks twice a second.
LEASE: Final = 3.0


@dataclass(frozen=True, slots=True)
class Ports:
    """``flower`` None: without Flower."""

    site: int = 8000
    gateway: int = 8001
    flower: int | None = 5555

    def require_free(self) -> None:
        """Raises NotRunning, before anything is started."""
        require_free(self.site, "the site", "--port")
        require_free(self.gateway, "the gateway", "--gateway-port")
        if self.flower is not None:
            require_free(self.flower, "Flower", "--flower-port or --no-flower")


class Stack:
    """Everything that one run consists of. A context manager: whatever happens, nothing is left behind.

    Attributes:
        stop: set to make ``start`` give up.
        children: by name, those that were started.
    """

    def __init__(self, ports: Ports, *, redis_url: str = "", environment: Mapping[str, str] | None = None) -> None:
        """``redis_url``: a server that is there; without it one of our own. ``environment`` is for all children."""
        self.ports = ports
        self.stop = threading.Event()
        self.children: dict[str, Child] = {}
        self.redis_url = redis_url
        self.prefix = f"demo-{secrets.token_hex(4)}"
        # Becomes true when the server that was given has answered: then there may be something of ours in it.
        self._given_redis = False
        self._extra = environment or {}

    def __enter__(self) -> Self:
        self.directory = Path(tempfile.mkdtemp(prefix="eventbus-demo-"))
        return self

    def __exit__(self, *_: object) -> None:
        # The server last: the others still have something to say to it.
        server = self.children.pop("Redis", None)
        end_all(self.children.values())
        if server is not None:
            server.end(grace=2)
        elif self._given_redis:
            self._delete_keys()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self) -> None:
        """Start everything and wait until it is ready. Raises NotRunning, Interrupted."""
        if not CLIENT.is_file():
            raise NotRunning("the browser client is not built; run make client")
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
        """Start the worker again, which was killed. What it had begun comes again."""
        self.children["Celery worker"].end(grace=0)
        requeue_unacknowledged(self.broker, self.prefix)
        self._run(self._worker())
        self.children["Celery worker"].wait_ready(self.stop)

    def stop_gateway(self, signal_: signal.Signals = signal.SIGTERM) -> None:
        """Stop the gateway; everything else goes on."""
        child = self.children["gateway"]
        child.send(signal_)
        child.end()

    def kill_all(self) -> None:
        """Without asking."""
        for child in list(self.children.values()):
            child.kill()

    @property
    def url(self) -> str:
        """Of the page."""
        return f"http://127.0.0.1:{self.ports.site}/"

    @property
    def broker(self) -> str:
        """Celery's database of the server."""
        return broker_url(self.redis_url)

    @property
    def redis_shown(self) -> str:
        """Address of the server, without a password."""
        return self.redis_url.rpartition("@")[2] or self.redis_url

    def _start_redis(self) -> None:
        if self.redis_url:
            if not pings(self.redis_url):
                raise NotRunning("EVENTBUS_REDIS_URL names a Redis that does not answer")
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
            # The site listens on the loopback, and the worker is this run's own.
            "DEMO_TROUBLE": "1",
            # A person waits for what takes half a minute by default: that a dead worker is noticed.
            "EVENTBUS_WORKER_LEASE": str(LEASE),
            "EVENTBUS_WORKER_CANCEL_POLL": "0.2",
            "WEBUI_SWEEP_INTERVAL": "0.5",
            "WEBUI_SWEEP_LEASE": "5",
            "WEBUI_LEASE_GRACE": str(LEASE),
            "WEBUI_PORT": str(self.ports.gateway),
            "WEBUI_JWT_SECRET": secret,
            "WEBUI_JWT_AUDIENCE": GATEWAY,
            # Exactly these two: a page from elsewhere gets no connection.
            "WEBUI_ALLOWED_ORIGINS": f"http://127.0.0.1:{site},http://localhost:{site}",
            # A handful of pages may all be sent away at once.
            "WEBUI_DRAIN_SPREAD": "0.2",
            "WEBUI_SHUTDOWN_GRACE": "2",
            "PYTHONUNBUFFERED": "1",
            # A process that is killed does not clear its files away.
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
        # It asks nobody who they are: for this machine only.
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
                sys.stderr.write(f"demo: keys {self.prefix}:* stay in {self.redis_shown}: {error}\n")
