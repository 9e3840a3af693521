"""A pytest plugin: which lines of the sources each test runs, and how long it takes.

It also records the Lua pieces whose scripts a test calls; Redis does not say which of their lines it ran.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

__all__ = ["Trace"]

# The functions that name a script in a command, and their files.
_CALLS = {"command_on": "scripts/script.py", "join": "scripts/timeline.py"}
IMPORT = ""
"""The name of what ran outside a test: imports, fixtures of a session."""


class Trace:
    """Records while pytest runs.

    Args:
        root: the root of the copy.
        sources: paths of the traced sources, relative to the root.
        output: file for the result.
    """

    def __init__(self, root: Path, sources: list[str], output: Path) -> None:
        self._sources = {str(root / source): source for source in sources}
        self._lua = {source: (root / source).read_text() for source in sources if source.endswith(".lua")}
        self._output = output
        self._test = IMPORT
        self._lines: dict[tuple[str, int], set[str]] = defaultdict(set)
        self._seconds: dict[str, float] = defaultdict(float)
        self._failed: set[str] = set()
        self._known: dict[str, list[str]] = {}

    def start(self) -> None:
        threading.settrace(self._call)
        sys.settrace(self._call)

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        source = self._sources.get(frame.f_code.co_filename)
        if source is None:
            if frame.f_code.co_name in _CALLS and frame.f_code.co_filename.endswith(_CALLS[frame.f_code.co_name]):
                call = frame.f_locals.get("self")
                self._script(call.script.source if call else frame.f_globals["script"]("timeline/join").source)
            return None
        lines = self._lines

        def line(frame: FrameType, event: str, argument: Any) -> Any:
            if event == "line":
                lines[source, frame.f_lineno].add(self._test)
            return line

        lines[source, frame.f_lineno].add(self._test)
        return line

    def _script(self, text: str) -> None:
        if text not in self._known:
            self._known[text] = [name for name, piece in self._lua.items() if piece in text]
        for name in self._known[text]:
            self._lines[name, 0].add(self._test)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        self._test, begun = item.nodeid.partition("[")[0], time.monotonic()
        result = yield
        self._seconds[self._test] += time.monotonic() - begun
        self._test = IMPORT
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed or (report.skipped and report.when != "teardown"):
            self._failed.add(report.nodeid.partition("[")[0])

    def pytest_sessionfinish(self) -> None:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]
        lines: dict[str, dict[int, list[str]]] = defaultdict(dict)
        for (source, number), tests in self._lines.items():
            lines[source][number] = sorted(tests - self._failed)
        result = {"seconds": self._seconds, "failed": sorted(self._failed), "lines": lines}
        self._output.write_text(json.dumps(result))
