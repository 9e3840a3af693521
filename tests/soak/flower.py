"""A Flower that watches the soak: it receives each task, and an option bounds its memory."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Self

from tests.conftest import free_port, wait_until
from tests.soak.fleet import ROOT

__all__ = ["Flower"]

# It keeps so many tasks, and four times as many events. Full before the first fifth of a long soak is over.
TASKS_KEPT = 500


class Flower:
    """``celery flower``, which switches nothing on: the workers send events anyway."""

    def __init__(self, log: Path, environment: dict[str, str]) -> None:
        self.log = log
        self._address = f"http://127.0.0.1:{(port := free_port())}"
        self._environment = {**environment, "FLOWER_UNAUTHENTICATED_API": "true"}
        self._command = [sys.executable, "-m", "celery", "-A", "tests.soak.app", "flower", "--address=127.0.0.1"]
        self._command += [f"--port={port}", "--enable_events=False", f"--max_tasks={TASKS_KEPT}"]

    def __enter__(self) -> Self:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self._environment, cwd=ROOT, stdout=log, stderr=log)
        wait_until(lambda: self._get("/healthcheck"), f"Flower to answer, see {self.log}", 30)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)

    @property
    def pid(self) -> int:
        return self._process.pid

    def heard(self) -> int:
        """Events that it has taken in, by its own count."""
        counts = re.findall(r"^flower_events_total\{[^}]*\} (\S+)$", self._get("/metrics"), re.MULTILINE)
        return int(sum(map(float, counts)))

    def _get(self, path: str) -> str:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(self._address + path, timeout=5) as response:
                return str(response.read().decode())
        except OSError:
            return ""
