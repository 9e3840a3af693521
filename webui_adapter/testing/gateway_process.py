"""A gateway for tests: ``python -m webui_adapter`` in a process of its own, on a free port."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.error import URLError
from urllib.request import urlopen

from eventbus.testing import free_port
from webui_adapter.errors import NotReady

__all__ = ["GatewayProcess"]

_TAIL = 2000  # characters of its log in an error


class GatewayProcess:
    """A gateway with settings of its own; a context manager that starts it, waits until it serves, and ends it.

    Attributes:
        port, prefix, key_prefix: where it listens, under which path, and for which keys.
        secret: what its tokens are signed with.
        log: the file that it writes to.
        process: None while it does not run.
    """

    def __init__(self, folder: Path, redis_url: str, key_prefix: str = "eb", **settings: object) -> None:
        """``settings`` are those of ``GatewaySettings``, or variables in capitals. None: the variable is not set.

        Of this process's environment ``WEBUI_…`` and ``EVENTBUS_…`` are left out.
        """
        self.port = free_port()
        self.log = folder / f"gateway-{self.port}.log"
        self.prefix = str(settings.get("prefix", "/eventbus"))
        self.key_prefix = key_prefix
        named = {"port": self.port, "jwt_secret": secrets.token_hex(32), **settings}
        self.secret = str(named["jwt_secret"])
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("WEBUI_", "EVENTBUS_"))},
            # It has to find what this process finds: modules of events, an authoriser.
            "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
            "EVENTBUS_REDIS_URL": redis_url,
            "EVENTBUS_KEY_PREFIX": key_prefix,
            **{
                (name if name.isupper() else f"WEBUI_{name.upper()}"): str(value)
                for name, value in named.items()
                if value is not None
            },
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Run it, and return at once."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "webui_adapter"], env=self._environment, stderr=log, stdout=log
            )
        return self

    def wait_ready(self, seconds: float = 30.0) -> Self:
        """Wait until it serves.

        Raises:
            NotReady: it has ended, or does not serve within ``seconds``.
        """
        deadline = time.monotonic() + seconds
        while not self._ready():
            if time.monotonic() > deadline:
                raise NotReady(f"the gateway was not ready within {seconds:g} s", log=self._said())
            time.sleep(0.01)
        return self

    def stop(self) -> None:
        """End it at once."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            self.process.wait()
            self.process = None

    def __enter__(self) -> Self:
        try:
            return self.start().wait_ready()
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def http(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        """Where pages connect."""
        return f"ws://127.0.0.1:{self.port}{self.prefix}/ws"

    @property
    def sse(self) -> str:
        """Where streams are read."""
        return f"{self.http}{self.prefix}/sse"

    @property
    def pid(self) -> int:
        """Its process."""
        assert self.process is not None
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, seconds: float = 15) -> int:
        """Its exit code, once it has ended."""
        assert self.process is not None
        return self.process.wait(seconds)

    def _ready(self) -> bool:
        assert self.process is not None
        code = self.process.poll()
        if code is not None:
            raise NotReady(f"the gateway ended at once with code {code}", log=self._said())
        try:
            with urlopen(f"{self.http}/readyz", timeout=5) as answer:  # noqa: S310 - its own address
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def _said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-_TAIL:]
