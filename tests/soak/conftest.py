"""The size of the soak, and a table of its figures."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

# As part of `make test` a few hundred tasks; `make soak` sets 50,000.
TASKS = int(os.environ.get("SOAK_TASKS", "300"))
SEED = int(os.environ.get("SOAK_SEED", "1"))

_figures: list[str] = []


@pytest.fixture
def report() -> Callable[[str], None]:
    """Note a line for the end."""
    return _figures.append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _figures:
        terminalreporter.section("soak")
        for line in _figures:
            terminalreporter.write_line(line)
