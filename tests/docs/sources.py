"""The files of the repository that the checks read, and the names that a module exports."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

__all__ = ["PACKAGES", "ROOT", "exported", "files"]

ROOT = Path(__file__).parents[2]
PACKAGES = ("eventbus", "worker_adapter", "webui_adapter")


def files(paths: list[str]) -> list[Path]:
    """Files below ``paths`` that git tracks or would track, relative to the root; all of them without ``paths``."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *paths]
    listed = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True).stdout
    return sorted(Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file())


def exported(tree: ast.Module) -> list[str]:
    """The names in ``__all__``."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(ast.unparse(target) == "__all__" for target in node.targets):
            return [str(name) for name in ast.literal_eval(node.value)]
    return []
