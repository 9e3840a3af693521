"""The changes of a Lua source: one token or one line at a time, outside strings and comments."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.mutants.mutant import Change

__all__ = ["lua_changes", "valid_lua"]

_HIDDEN = re.compile(r"--\[\[.*?\]\]|--[^\n]*|\[\[.*?\]\]|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)
_SWAPS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("comparison", r"[<>]=?|==|~=", {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "~=", "~=": "=="}),
    ("boolean", r"\b(?:and|or)\b", {"and": "or", "or": "and"}),
    ("constant", r"\b(?:true|false)\b", {"true": "false", "false": "true"}),
    ("not", r"\bnot\b", {"not": "not not"}),
    ("arithmetic", r"(?<=[\w)\]] )[-+*/%](?= [\w(#-])", {"+": "-", "-": "+", "*": "/", "/": "*", "%": "*"}),
    ("call", r"\bmath\.(?:min|max|floor|ceil)\b", {
        "math.min": "math.max", "math.max": "math.min", "math.floor": "math.ceil", "math.ceil": "math.floor",
    }),
)  # fmt: skip
_NUMBER = re.compile(r"(?<![\w.])(?<!ARGV\[)(?<!KEYS\[)\d+(?![\w.])")
_CONDITION = re.compile(r"\b(?:if|elseif)\b(.+?)\bthen\b")
_STATEMENT = re.compile(
    r"^[ \t]*((?:[A-Za-z_][\w.]*\(.*\))|(?!local\b|for\b|return\b)[A-Za-z_][\w.\[\]]* = .*)$", re.MULTILINE
)


def lua_changes(source: bytes) -> list[Change]:
    """Return all changes of a source, those too that are no valid Lua: see ``valid_lua``."""
    text = source.decode("latin-1")  # a character is a byte, so that offsets agree
    masked = _HIDDEN.sub(lambda found: re.sub(r"[^\n]", "\x01", found.group()), text)
    return [*_changes(masked)]


def _changes(masked: str) -> Iterator[Change]:
    for operator, pattern, swaps in _SWAPS:
        for found in re.finditer(pattern, masked):
            yield Change(*found.span(), swaps[found.group()].encode(), operator)
    for found in _NUMBER.finditer(masked):
        for value in (int(found.group()) + 1, int(found.group()) - 1):
            yield Change(*found.span(), str(value).encode(), "constant")
    for found in _CONDITION.finditer(masked):
        for value in (b" true ", b" false "):
            yield Change(*found.span(1), value, "condition")
    for found in _STATEMENT.finditer(masked):
        line = found.group(1)
        if all(line.count(opened) == line.count(closed) for opened, closed in ("()", "[]", "{}")):
            yield Change(*found.span(1), b"-- removed", "statement")


def valid_lua(source: bytes) -> bool:
    """Whether luacheck can parse a source."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mutant.lua"
        path.write_bytes(source)
        code = subprocess.run(["luacheck", "-q", "--no-config", path], capture_output=True, check=False).returncode
    return code <= 1  # 1: warnings, 2: a syntax error
