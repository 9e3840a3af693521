"""Versions of dependencies: those with known faults that the product reaches are excluded, and the audit is strict."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.docs.sources import ROOT

# The last version with the fault -> what it is.
FAULTY = {
    ("starlette", "0.49.0"): "CVE-2025-62727, ranges of file answers",
    ("PyJWT", "2.11.0"): "CVE-2026-32597, critical header parameters",
    ("fastapi", "0.109.0"): "CVE-2024-24762, forms",
    ("python-multipart", "0.0.17"): "CVE-2024-53981, boundaries",
    ("redis", "4.5.3"): "CVE-2023-28859, replies of cancelled calls",
    ("celery", "5.2.1"): "CVE-2021-23727, errors in a result backend",
    ("pydantic", "2.3.0"): "CVE-2024-3772, addresses",
    ("flower", "1.1.0"): "CVE-2022-30034, logins",
}


def requirements() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    found = [Requirement(text) for texts in lists for text in texts]
    return {one.name.lower(): one for one in found}


@pytest.mark.parametrize(("name", "version"), FAULTY)
def test_a_faulty_version_is_excluded(name: str, version: str) -> None:
    one = requirements()[name.lower()]
    assert version not in one.specifier, FAULTY[name, version]


def audit_command() -> list[str]:
    recipe = re.search(r"^\t\$\(BIN\)/(pip-audit .*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    return shlex.split(recipe[1])


def test_an_audit_that_cannot_ask_fails(tmp_path: Path) -> None:
    """The service of advisories cannot be reached. Nothing was audited, so the result must not be good."""
    pinned = tmp_path / "requirements.txt"
    pinned.write_text(f"packaging==24.0 --hash=sha256:{'0' * 64}\n")
    program, *options = audit_command()
    options[-1] = str(pinned)
    nowhere = "http://127.0.0.1:9"
    environment = {**os.environ, "HTTP_PROXY": nowhere, "HTTPS_PROXY": nowhere, "NO_PROXY": "", "no_proxy": ""}
    limits = ["--cache-dir", str(tmp_path / "cache"), "--timeout", "2"]
    command = [str(Path(sys.executable).parent / program), *options, *limits]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0, done.stderr
    assert "No known vulnerabilities" not in done.stdout + done.stderr
