"""Runs the code of docs/how-to/test-your-code.md in a project made of its files, and compares its output."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGINS = ("-p", "pytest_eventbus.bus", "-p", "pytest_eventbus.gateway", "-p", "no:cacheprovider")
PAGE = ROOT / "docs" / "how-to" / "test-your-code.md"
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    for language, block in BLOCKS:
        if language:
            before, *parts = re.split(r"^# ([\w.]+)$\n", block, flags=re.MULTILINE)
            assert not before, f"a block that names no file: {before}"
            for name, text in zip(parts[::2], parts[1::2], strict=True):
                assert not (folder / name).exists(), f"{name} is there twice"
                (folder / name).write_text(text)
    return folder


def run(project, *arguments):
    # Nothing of this run's own: a user's environment, with a Redis in it that is not to be touched.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "EVENTBUS_REDIS_URL": "redis://127.0.0.1:1/0"}
    environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", *PLUGINS, *arguments]
    return subprocess.run(
        command, check=False, cwd=project, env=environment, capture_output=True, text=True, timeout=110
    )


def test_all_of_it_passes(project):
    files = [name for name in sorted(path.name for path in project.glob("test_*.py")) if name != "test_wrong.py"]
    assert files == ["test_page.py", "test_tasks.py", "test_unit.py"]
    result = run(project, *files)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 8 passed" in result.stdout


def test_a_failure_reads_as_shown(project):
    (shown,) = [block for language, block in BLOCKS if not language]
    result = run(project, "test_wrong.py")
    assert result.returncode == 1, result.stdout + result.stderr
    said = "\n".join(line.removeprefix("E").strip() for line in result.stdout.splitlines() if line.startswith("E"))
    assert said == "\n".join(line.strip() for line in shown.splitlines())
