"""pytest-celery's nodes without Docker: processes behind what its nodes ask of a container."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from signal import Signals

from tests.conftest import wait_until


class ServerContainer:
    """The throw-away server as a broker or a backend; it outlives the node."""

    status = "running"
    id = name = "eventbus-server"

    def __init__(self, url: str) -> None:
        self.celeryconfig = {"url": url, "host_url": url}

    def ready(self) -> bool:
        return True

    def logs(self) -> str:
        return ""

    def teardown(self) -> None:
        pass


class WorkerContainer:
    """``celery worker`` in a separate process."""

    def __init__(self, folder: Path, application: str, environment: dict[str, str], *arguments: str) -> None:
        self.name = self.id = f"worker-{folder.name}"
        self.celeryconfig: dict[str, str] = {}
        self._log = folder / "worker.log"
        self._environment = {**os.environ, **environment}
        self._command = [sys.executable, "-m", "celery", "-A", application, "worker", "-l", "INFO"]
        self._command += ["-n", f"{self.worker_name()}@{self.id}", *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self.restart()

    @property
    def status(self) -> str:
        return "running" if self._process is not None and self._process.poll() is None else "exited"

    def restart(self, timeout: float = 10) -> None:
        self.kill("SIGTERM")
        if self._process is not None:
            self._process.wait(timeout)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=self._environment, start_new_session=True
            )
        self._starts += 1

    def ready(self) -> bool:
        wait_until(lambda: self.logs().count(" ready.") == self._starts, f"the worker to be ready, see {self._log}", 60)
        return True

    def logs(self) -> str:
        return self._log.read_text()

    def kill(self, signal: str = "SIGKILL") -> None:  # the parameter's name is pytest-celery's
        if self._process is None or self.status != "running":
            return
        os.killpg(self._process.pid, Signals[signal])
        if signal == "SIGKILL":
            self._process.wait(5)

    def reload(self) -> None:
        """Nothing is known of a process that could be stale."""

    def teardown(self) -> None:
        self.kill("SIGTERM")
        try:
            if self._process is not None:
                self._process.wait(10)
        finally:
            self.kill()

    @staticmethod
    def worker_name() -> str:
        return "shop"

    @staticmethod
    def worker_queue() -> str:
        return "celery"
