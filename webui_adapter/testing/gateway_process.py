"""A gateway for tests: ``python -m webui_adapter`` in a separate process, on a free port."""

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
    """A gateway process; a context manager that starts it, waits until it serves, and ends it.

    The process does not inherit variables ``WEBUI_…`` and ``EVENTBUS_…``.

    Args:
        folder: where the log file is written.
        redis_url: the address of Redis.
        key_prefix: the first part of every key.
        settings: fields of ``GatewaySettings``, or variables in capitals. None: the variable is not set.

    Attributes:
        port: the port on 127.0.0.1.
        prefix: the path of the gateway's routes.
        key_prefix: the first part of every key.
        secret: the key that signs the tokens.
        log: the log file.
        process: the process; None while it does not run.
    """

    def __init__(self, folder: Path, redis_url: str, key_prefix: str = "eb", **settings: object) -> None:
        self.port = free_port()
        self.log = folder / f"gateway-{self.port}.log"
        self.prefix = str(settings.get("prefix", "/eventbus"))
        self.key_prefix = key_prefix
        named = {"port": self.port, "jwt_secret": secrets.token_hex(32), **settings}
        self.secret = str(named["jwt_secret"])
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("WEBUI_", "EVENTBUS_"))},
            # The process must find the same modules as the test: events, an authoriser.
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
        """Start the process without waiting for it.

        Returns:
            The gateway itself.
        """
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "webui_adapter"], env=self._environment, stderr=log, stdout=log
            )
        return self

    def wait_ready(self, seconds: float = 30.0) -> Self:
        """Wait until the gateway serves.

        Args:
            seconds: how long to wait.

        Returns:
            The gateway itself.

        Raises:
            NotReady: the process has ended, or does not serve within ``seconds``.
        """
        deadline = time.monotonic() + seconds
        while not self._ready():
            if time.monotonic() > deadline:
                raise NotReady(f"the gateway was not ready within {seconds:g} s", log=self._log_tail())
            time.sleep(0.01)
        return self

    def stop(self) -> None:
        """Kill the process."""
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
        """The gateway's address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        """The address of the WebSocket."""
        return f"ws://127.0.0.1:{self.port}{self.prefix}/ws"

    @property
    def sse(self) -> str:
        """The address of the event stream."""
        return f"{self.http}{self.prefix}/sse"

    @property
    def pid(self) -> int:
        """The process id."""
        assert self.process is not None
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process.

        Args:
            number: the signal.
        """
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, seconds: float = 15) -> int:
        """Wait for the end of the process.

        Args:
            seconds: how long to wait.

        Returns:
            The exit code.
        """
        assert self.process is not None
        return self.process.wait(seconds)

    def _ready(self) -> bool:
        assert self.process is not None
        code = self.process.poll()
        if code is not None:
            raise NotReady(f"the gateway ended immediately, with code {code}", log=self._log_tail())
        try:
            with urlopen(f"{self.http}/readyz", timeout=5) as answer:  # noqa: S310 - its own address
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def _log_tail(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-_TAIL:]
