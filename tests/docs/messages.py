"""The messages of the packages that a user can meet: log lines from warning on, and errors."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from tests.docs.sources import PACKAGES, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["errors", "log_lines", "sources", "texts"]

GAP = "…"
_LEVELS = frozenset({"warning", "error", "exception", "critical"})
_FORMAT = re.compile(r"%[-0-9.]*[a-zA-Z]|\{[^}]*\}")


def sources() -> list[Path]:
    """The packages' Python files."""
    found = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return sorted(path for path in found if "node_modules" not in path.parts)


def _text(node: ast.AST) -> str | None:
    """A message with ``…`` in the place of its values; None if it is computed."""
    match node:
        case ast.Constant(value=str(text)):
            return _FORMAT.sub(GAP, text)
        case ast.JoinedStr(values=values):
            parts = [part.value if isinstance(part, ast.Constant) else GAP for part in values]
            return "".join(map(str, parts))
    return None


def log_lines(path: Path) -> Iterator[str]:
    """Log lines of a file from warning on."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(func=ast.Attribute(attr=level), args=[first, *_]) if level in _LEVELS:
                yield _text(first) or ""
            case ast.Call(func=ast.Attribute(attr="log"), args=[ast.Constant(), second, *_]):
                yield _text(second) or ""


def errors(path: Path) -> Iterator[tuple[str, str]]:
    """Class and message of the errors that a file raises."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(func=ast.Name(id=name), args=arguments) if name[:1].isupper() or name.startswith("_"):
                yield from ((name, text) for text in _sentences(arguments))
            case ast.ClassDef(name=name):
                yield from ((name, text) for call in ast.walk(node) for text in _of_constructor(call))


def _of_constructor(node: ast.AST) -> Iterator[str]:
    """The message that an error class makes by itself."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Call(func=ast.Name(id="super")), attr="__init__"), args=arguments):
            yield from _sentences(arguments)


def _sentences(arguments: list[ast.expr]) -> Iterator[str]:
    yield from (text for text in map(_text, arguments) if text and " " in text)


def texts(path: Path) -> Iterator[str]:
    """Every text of a file, with ``…`` in the place of its values."""
    yield from filter(None, map(_text, ast.walk(ast.parse(path.read_text()))))
