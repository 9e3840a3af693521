"""Bounds of the source tree: ``python -m tests.layout.bounds [PATH …]``.

A folder of the three packages has at most 12 source files, a file at most 350 lines, a function at most 50 lines. No
module has the name of a function or class that its package exports, since the import of the module would hide it.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from typing import TYPE_CHECKING

from tests.docs.sources import PACKAGES, ROOT, exported, files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOLDER_FILES, FILE_LINES, FUNCTION_LINES = 12, 350, 50

_SOURCES = frozenset({".py", ".lua", ".ts"})
_TESTS = "webui_adapter/client/test"


def folders(paths: list[Path]) -> Iterator[str]:
    """Folders with too many source files; an empty or exporting ``__init__.py`` is not counted."""
    counts = Counter(path.parent for path in paths if path.name != "__init__.py")
    for folder, count in sorted(counts.items()):
        if count > FOLDER_FILES:
            yield f"{folder}: {count} source files, at most {FOLDER_FILES}"


def lines(path: Path, text: str) -> Iterator[str]:
    count = len(text.splitlines())
    if count > FILE_LINES:
        yield f"{path}: {count} lines, at most {FILE_LINES}"


def functions(path: Path, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            count = node.end_lineno - node.lineno + 1
            if count > FUNCTION_LINES:
                yield f"{path}:{node.lineno}: {node.name} has {count} lines, at most {FUNCTION_LINES}"


def hidden(path: Path, tree: ast.Module) -> Iterator[str]:
    """Modules with the name of something that the package exports."""
    if path.name == "__init__.py":
        folder = ROOT / path.parent
        for name in exported(tree):
            if (folder / f"{name}.py").exists() or (folder / name / "__init__.py").exists():
                yield f"{path}: the module {name} has the name of an exported {name}"


def main(arguments: list[str]) -> int:
    paths = [path for path in files(arguments) if path.suffix in _SOURCES and path.parts[0] in PACKAGES]
    paths = [path for path in paths if not path.as_posix().startswith(_TESTS)]
    found = list(folders(paths))
    for path in paths:
        text = (ROOT / path).read_text()
        found += lines(path, text)
        if path.suffix == ".py":
            tree = ast.parse(text)
            found += functions(path, tree)
            found += hidden(path, tree)
    for line in found:
        print(line)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
