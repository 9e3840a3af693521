"""Reads the Markdown files of the repository: links, anchors and code blocks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.docs.sources import ROOT, files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["anchors", "code_blocks", "links", "markdown_files"]

_FENCE = re.compile(r"^( *)(```+|~~~+)([^\n]*)\n(.*?)^\1\2 *$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(
    r"!?\[[^\]]*\]\(<?([^)\s>]+)>?[^)]*\)|^\[[^\]]+\]: +(\S+)|<(?:img|a) [^>]*(?:src|href)=\"([^\"]+)\"", re.MULTILINE
)
_HEADING = re.compile(r"^#{1,6} +(.+?)(?: +\{ *#([\w-]+) *\})?$", re.MULTILINE)
_ID = re.compile(r"<\w+ [^>]*(?:id|name)=\"([^\"]+)\"")


def markdown_files() -> list[Path]:
    """All of them, relative to the root."""
    return [path for path in files([]) if path.suffix == ".md"]


def code_blocks(path: Path, language: str) -> Iterator[tuple[int, str]]:
    """Code blocks of a language with the line on which each begins."""
    text = (ROOT / path).read_text()
    for block in _FENCE.finditer(text):
        if re.match(rf"{language}\b", block[3].strip()):
            yield text.count("\n", 0, block.start()) + 2, block[4]


def links(path: Path) -> Iterator[tuple[int, str]]:
    """Targets of links and images with their lines, not those in code."""
    text = _FENCE.sub(lambda block: "\n" * block[0].count("\n"), (ROOT / path).read_text())
    text = re.sub(r"`[^`\n]*`", "code", text)
    for link in _LINK.finditer(text):
        yield text.count("\n", 0, link.start()) + 1, link[1] or link[2] or link[3]


def anchors(path: Path) -> set[str]:
    """Anchors of a file, as forges and the site make them."""
    text = _FENCE.sub("", (ROOT / path).read_text())
    found = set(_ID.findall(text))
    for heading, given in _HEADING.findall(text):
        plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.add(given or re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", plain).strip()))
    return found
