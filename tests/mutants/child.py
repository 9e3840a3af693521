"""Runs pytest in forked processes, in a copy of the project, within limits of time and memory."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.guard import Guard
from tests.mutants.server import Server, limit

__all__ = ["Copy", "Outcome", "preload"]

_LEFT_OUT = shutil.ignore_patterns(
    ".*", "node_modules", "build", "dist", "__pycache__", "site", "*.pyc", "docs", "bench", "browser", "soak", "compose"
)
_FIRST = re.compile(rb"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
_STATUS_OF = {0: "passed", 1: "failed", 2: "failed"}


def preload(libraries: Iterable[str]) -> None:
    """Import libraries once, here. No thread starts, so a forked process can use them."""
    for name in ("hypothesis", "pytest", "pytest_asyncio", *libraries):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run of pytest ended.

    Attributes:
        status: ``passed``, ``failed``, ``timeout``, or ``broken`` if pytest did not run.
        test: the first test that failed, if one did.
        seconds: how long it took.
        output: the end of what it wrote.
    """

    status: str
    test: str
    seconds: float
    output: str


class Copy:
    """A copy of the project, in which one run at a time takes place.

    Args:
        root: root of the project.
        folder: for the copy.
        guard: of this mutation run.
    """

    def __init__(self, root: Path, folder: Path, guard: Guard) -> None:
        self._guard = guard
        self.root = folder / "project"
        self._folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(root, self.root, ignore=_LEFT_OUT)
        client = Path("webui_adapter/client/dist")
        if (root / client).is_dir():
            shutil.copytree(root / client, self.root / client)
        self._pid = self._server_pid = 0
        self._begun = self._deadline = 0.0
        self._server: tuple[int, int] | None = None

    def write(self, path: str, source: bytes) -> None:
        """Put a source in place of a file, until ``restore``."""
        target = self.root / path
        kept = self._folder / "kept"
        if not kept.exists():
            shutil.copy2(target, kept)
        target.write_bytes(source)
        # The compiled file belongs to the time stamp of the source.
        os.utime(target, (time.time() + 1000, time.time() + 1000))

    def restore(self, path: str) -> None:
        kept = self._folder / "kept"
        if kept.exists():
            shutil.copy2(kept, self.root / path)
            kept.unlink()

    def close(self) -> None:
        """End the server."""
        if self._server_pid:
            os.killpg(self._server_pid, signal.SIGKILL)
            os.waitpid(self._server_pid, 0)

    # A new process for each run

    def start(self, arguments: list[str], *, seconds: float, trace: list[str] | None = None) -> None:
        """Fork pytest.

        Args:
            arguments: of pytest.
            seconds: of processor time; ten times as long may pass on a busy machine.
            trace: sources to trace; default: none.
        """
        self._begun = time.monotonic()
        self._deadline = self._begun + 60 + 10 * seconds

        def plugin() -> object:
            limit(seconds)
            if trace is None:
                return object()
            from tests.mutants.trace import Trace  # noqa: PLC0415 - from the copy

            tracer = Trace(self.root, trace, self.traced)
            tracer.start()
            return tracer

        self._pid = self._fork(["-x", *arguments] if trace is None else arguments, plugin, compiled=trace is not None)

    def outcome(self) -> Outcome | None:
        """Return the outcome if the run has ended, and end it if its time has."""
        if not self._pid:
            return self._answer()
        pid, code = os.waitpid(self._pid, os.WNOHANG)
        late = pid == 0 and time.monotonic() > self._deadline
        if pid == 0 and not late:
            return None
        with contextlib.suppress(ProcessLookupError):  # servers that the tests started are in its group
            os.killpg(self._pid, signal.SIGKILL)
        if late:
            os.waitpid(self._pid, 0)
        self._pid = 0
        output = self._output.read_bytes()
        found = _FIRST.search(output)
        killed = late or os.WIFSIGNALED(code)
        status = "timeout" if killed else _STATUS_OF.get(os.WEXITSTATUS(code), "broken")
        test = found.group(1).decode() if found else ""
        return Outcome(status, test, time.monotonic() - self._begun, output[-3000:].decode(errors="replace"))

    # One process that forks

    def serve(self, files: list[str], sources: list[str]) -> None:
        """Start the server if it does not run, and wait until it has collected the tests.

        Args:
            files: all test files.
            sources: all sources that requests may name.

        Raises:
            RuntimeError: the collection failed.
        """
        if self._server is not None:
            return
        ours, theirs, back, answers = *os.pipe()[::-1], *os.pipe()

        def plugin() -> object:
            for fd in (ours, back):
                os.close(fd)
            server = Server(self.root, os.fdopen(theirs), os.fdopen(answers, "w"), self._guard)
            server.keep([source for source in sources if source.endswith(".py")])
            return server

        self._server_pid = self._fork(["-x", *files], plugin, compiled=True)
        os.close(theirs)
        os.close(answers)
        self._server = ours, back
        if not os.read(back, 16):
            raise RuntimeError(f"pytest cannot collect the tests:\n{self._output.read_text()[-3000:]}")

    def ask(self, path: str, tests: list[str], *, seconds: float) -> None:
        """Have the server run tests.

        Args:
            path: the file that was changed with ``write``.
            tests: node ids, in order.
            seconds: as in ``start``.
        """
        assert self._server is not None
        self._begun = time.monotonic()
        request = {"path": path, "tests": tests, "seconds": seconds}
        os.write(self._server[0], json.dumps(request).encode() + b"\n")

    def _answer(self) -> Outcome | None:
        assert self._server is not None
        if not select.select([self._server[1]], [], [], 0)[0]:
            return None
        line = os.read(self._server[1], 65536)
        answer = json.loads(line) if line else {"code": 70, "failed": ""}
        status = "timeout" if answer["code"] == -1 else _STATUS_OF.get(answer["code"], "broken")
        output = self._output.read_bytes()[-3000:].decode(errors="replace")
        return Outcome(status, answer["failed"], time.monotonic() - self._begun, f"code {answer['code']}\n{output}")

    # Both

    @property
    def traced(self) -> Path:
        """File with the result of a trace."""
        return self._folder / "trace.json"

    @property
    def _output(self) -> Path:
        return self._folder / "output"

    def _fork(self, arguments: list[str], plugin: Callable[[], object], *, compiled: bool) -> int:
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            return pid
        code = 70
        try:
            os.setsid()
            self._guard.watch()
            with self._output.open("wb") as output:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
            os.chdir(self.root)
            shutil.rmtree(self._folder / "hypothesis", ignore_errors=True)
            os.environ |= {
                "HYPOTHESIS_STORAGE_DIRECTORY": str(self._folder / "hypothesis"),
                "PYTHONPATH": str(self.root),
            }
            sys.path[:] = [str(self.root), *(path for path in sys.path if path)]
            if not compiled:
                os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
                sys.dont_write_bytecode = True
            added = plugin()
            for name in [name for name in sys.modules if name.partition(".")[0] in {"tests", "eventbus"}]:
                del sys.modules[name]
            import hypothesis  # noqa: PLC0415 - loaded already, as pytest
            import pytest  # noqa: PLC0415

            # No shrinking: that a test fails is enough. The profiles of the tests inherit it.
            hypothesis.settings.register_profile(
                "mutants", phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate)
            )
            hypothesis.settings.load_profile("mutants")

            options = ["-q", "-p", "no:cacheprovider", "--tb=short", f"--basetemp={self._folder / 'tmp'}"]
            options += ["-W", "ignore::pytest.PytestAssertRewriteWarning", "--hypothesis-seed=0"]
            code = int(pytest.main([*options, *arguments], plugins=[added]))
            sys.stdout.flush()
        except BaseException:  # noqa: BLE001 - a forked process must not go on in its parent's code
            traceback.print_exc()
        finally:
            os._exit(code)
