"""The parts: HAProxy with the configuration of ``compose/``, gateways, and a server that records its requests."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jwt
import pytest

from tests.conftest import free_port, wait_until

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "compose" / "haproxy.cfg"
SECRET = "a secret of the tests, long enough"


def haproxy() -> str:
    found = shutil.which("haproxy", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if found is None:
        pytest.fail("haproxy is not installed: make system-parts")
    return found


def token(user: str) -> str:
    return jwt.encode({"sub": user, "exp": int(time.time()) + 600}, SECRET, "HS256")


def get(url: str, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Return status and body. The status is 0 without an answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, headers=dict(headers or {})), timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def raw(port: int, request: bytes) -> bytes:
    """Return the bytes that a plain connection receives until the peer closes."""
    answer = b""
    with (
        contextlib.suppress(ConnectionError),
        socket.create_connection(("127.0.0.1", port), timeout=8) as line,
    ):
        line.sendall(request)
        while piece := line.recv(65536):
            answer += piece
    return answer


class Gateway:
    """``python -m webui_adapter`` in a separate process."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self.port = free_port()
        self._environment = {**os.environ, "WEBUI_JWT_SECRET": SECRET, "WEBUI_INSTANCE": name, **environment}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "webui_adapter", "--port", str(self.port)]
        self.process = subprocess.Popen(command, env=self._environment, cwd=ROOT, stdout=subprocess.DEVNULL)

    def ready(self) -> bool:
        return get(f"http://{self.address}/readyz")[0] == 200

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


class Recorder(ThreadingHTTPServer):
    """A server in place of a site or a gateway. It records the headers of every request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[str, list[tuple[str, str]]]] = []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def close(self) -> None:
        self.shutdown()
        self.server_close()

    def headers_of(self, path: str) -> dict[str, list[str]]:
        """Return all headers of the last request for a path, names in lower case."""
        found = [headers for seen, headers in self.seen if seen == path]
        assert found, f"no request for {path}: {[seen for seen, _ in self.seen]}"
        headers: dict[str, list[str]] = {}
        for name, value in found[-1]:
            headers.setdefault(name.lower(), []).append(value)
        return headers


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert isinstance(self.server, Recorder)
        self.server.seen.append((self.path, list(self.headers.items())))
        body = b"the site: " + self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        # A health check closes the connection as soon as it has read the status.
        with contextlib.suppress(ConnectionError):
            super().handle()

    def log_message(self, *_: object) -> None:
        pass


class Balancer:
    """HAProxy with the environment of its container."""

    def __init__(
        self, config: Path, gateways: list[str], site: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self.port, self._internal, self._admin = free_port(), free_port(), free_port()
        names = {f"GATEWAY_{number}": address for number, address in enumerate(gateways, 1)}
        self._environment = {
            "PATH": os.environ["PATH"],
            "PUBLIC_BIND": f"127.0.0.1:{self.port}",
            "INTERNAL_BIND": f"127.0.0.1:{self._internal}",
            "ADMIN_BIND": f"ipv4@127.0.0.1:{self._admin}",
            "MAX_CONNECTIONS": "500",
            "SITE": site,
            **names,
            **(environment or {}),
        }
        self._config = config

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def websocket(self) -> str:
        return f"ws://127.0.0.1:{self.port}/eventbus/ws"

    @property
    def internal(self) -> str:
        return f"http://127.0.0.1:{self._internal}"

    @contextlib.contextmanager
    def running(self) -> Iterator[Balancer]:
        command = [haproxy(), "-db", "-f", str(self._config)]
        process = subprocess.Popen(command, env=self._environment, stdout=subprocess.DEVNULL)
        try:
            wait_until(lambda: get(f"{self.internal}/healthz")[0] == 200, "HAProxy to be healthy")
            yield self
        finally:
            process.kill()
            process.wait()

    def statuses(self, backend: str = "gateways") -> dict[str, str]:
        """Return the status of each server: UP, DOWN, MAINT…"""
        return {row["svname"]: row["status"].split(" ")[0] for row in self._rows(backend)}

    def sessions(self) -> dict[str, int]:
        """Return the current connections of each gateway."""
        return {row["svname"]: int(row["scur"]) for row in self._rows("gateways")}

    def command(self, line: str) -> str:
        """Send a runtime command, as ``docker compose exec`` would."""
        return raw(self._admin, f"{line}\n".encode()).decode()

    def _rows(self, backend: str) -> list[dict[str, str]]:
        text = get(f"{self.internal}/stats;csv")[1].removeprefix("# ")
        rows = csv.DictReader(io.StringIO(text))
        return [row for row in rows if row["pxname"] == backend and row["svname"] not in ("FRONTEND", "BACKEND")]
