"""The files of the repository that the style checks read."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["ROOT", "files", "python_files"]

ROOT = Path(__file__).parents[2]
PACKAGES = ("eventbus", "worker_adapter", "webui_adapter")


def files(paths: list[str]) -> list[Path]:
    """Files below ``paths`` that git tracks or would track, relative to the root; all of them without ``paths``."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *paths]
    listed = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True).stdout
    return sorted(Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file())


def python_files(paths: list[str]) -> list[Path]:
    """Python files of the three packages."""
    return [path for path in files(paths) if path.suffix == ".py" and path.parts[0] in PACKAGES]
