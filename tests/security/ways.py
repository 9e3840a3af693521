"""The two ways of running a gateway, with the same settings: alone, and mounted in an application under uvicorn."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from tests.webui_adapter.gateways import SECRET, GatewayProcess
from webui_adapter.testing.gateway_process import GatewayProcess as Process

__all__ = ["CLASSES", "WAYS", "MountedProcess", "serving"]

CLASSES = ("--ws", "webui_adapter.uvicorn:WebSocketProtocol", "--http", "webui_adapter.uvicorn:HttpProtocol")


class MountedProcess(GatewayProcess):
    """``uvicorn`` with an application that includes the gateway's router."""

    options: tuple[str, ...] = CLASSES

    def start(self) -> Self:
        command = [sys.executable, "-m", "uvicorn", "--port", str(self.port), *self.options, "tests.security.site:app"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=self._environment, stderr=log, stdout=log)
        return self

    def stop(self) -> None:
        Process.stop(self)


WAYS: dict[str, type[GatewayProcess]] = {"alone": GatewayProcess, "mounted": MountedProcess}


@contextlib.contextmanager
def serving(way: str, folder: Path, redis_url: str, key_prefix: str, **settings: object) -> Iterator[GatewayProcess]:
    own = WAYS[way](folder, redis_url, key_prefix, jwt_secret=SECRET, **settings)
    own.start()
    try:
        own.wait_ready(90)
        yield own
    finally:
        own.stop()
