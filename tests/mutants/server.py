"""A process that has collected all tests, and forks for each run of some of them.

Imports and collection take seconds; a fork takes milliseconds. The process runs no test itself, so nothing is left of
one run in the next.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, TextIO

import pytest

from tests.mutants.guard import Guard
from tests.mutants.patch import forget_cached, patch, replacements

__all__ = ["MEMORY", "Server", "limit"]

MEMORY = 6 * 2**30
_PACKAGES = ("eventbus", "webui_adapter", "worker_adapter")


def limit(seconds: float) -> None:
    """Limit processor time and memory of this process."""
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 5))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


class Server:
    """A pytest plugin. It reads a request a line, and answers each with a line.

    Args:
        root: root of the copy.
        requests: the requests: ``path``, ``tests``, ``seconds``.
        answers: ``code`` (of pytest, or -1 if the run was ended) and the first test that ``failed``.
        guard: of this mutation run.
    """

    def __init__(self, root: Path, requests: TextIO, answers: TextIO, guard: Guard) -> None:
        self._root, self._requests, self._answers, self._guard = root, requests, answers, guard
        self._originals: dict[str, bytes] = {}
        self._failed: Path | None = None

    def keep(self, paths: list[str]) -> None:
        """Remember the sources as they are imported."""
        self._originals = {path: (self._root / path).read_bytes() for path in paths}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        items: dict[str, list[pytest.Item]] = defaultdict(list)
        for item in session.items:
            items[item.nodeid.partition("[")[0]].append(item)
        failed = self._root.parent / "failed"
        self._answers.write("ready\n")
        self._answers.flush()
        for line in self._requests:
            request: dict[str, Any] = json.loads(line)
            failed.unlink(missing_ok=True)
            pid = os.fork()
            if pid == 0:
                self._failed = failed
                self._begin(request)
                session.items[:] = [item for test in request["tests"] for item in items[test]]
                return
            answer = {"code": _wait(pid, 60 + 10 * request["seconds"])}
            answer["failed"] = failed.read_text() if failed.exists() else ""
            self._answers.write(json.dumps(answer) + "\n")
            self._answers.flush()
        os._exit(0)

    def _begin(self, request: dict[str, Any]) -> None:
        os.setsid()
        self._guard.watch()
        limit(request["seconds"])
        path: str = request["path"]
        if path.endswith(".lua"):
            forget_cached(_PACKAGES)
            return
        found = replacements(path, self._originals[path], (self._root / path).read_bytes())
        if not found or not patch(found, path):
            os._exit(71)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and self._failed is not None and not self._failed.exists():
            self._failed.write_text(report.nodeid)


def _wait(pid: int, seconds: float) -> int:
    """Wait for a run; end it, and the servers that its tests started, in time."""
    deadline = time.monotonic() + seconds
    ended, status = os.waitpid(pid, os.WNOHANG)
    while not ended and time.monotonic() < deadline:
        time.sleep(0.01)
        ended, status = os.waitpid(pid, os.WNOHANG)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    if not ended:
        os.waitpid(pid, 0)
        return -1
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -1
