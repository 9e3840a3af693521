"""Reads, splits and tokenises one document."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["NotText", "Text", "read_text"]

PASSAGE_TOKENS: Final = 80
_WORD = re.compile(r"\w+")
_RULE = re.compile(r"[\W_]{3,}")  # a line drawn with characters, or the frame of a table
_PARAGRAPH = re.compile(r"\n\s*\n")
# Control characters, except tab and line feed.
_CONTROL = dict.fromkeys([*range(9), 11, 12, *range(14, 32), 127])


class NotText(ValueError):
    """The file is not text. The page shows the message next to the file name."""


@dataclass(frozen=True, slots=True)
class Text:
    """The text of a document, split into passages."""

    passages: tuple[str, ...]
    words: int
    size: int


def read_text(path: Path, limit: int) -> Text:
    """Read a file of at most ``limit`` bytes.

    Raises:
        NotText: the file is not UTF-8, has NUL bytes, is too large, or is not readable.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)
    except OSError as error:
        raise NotText(f"cannot be read: {error.strerror}") from error
    if len(raw) > limit:
        raise NotText(f"is larger than {limit:,} bytes")
    if b"\0" in raw:
        raise NotText(f"is not text: a NUL byte at position {raw.index(0):,}")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotText(f"is not text: no UTF-8 at position {error.start:,}") from error
    passages = tuple(_split(text.translate(_CONTROL)))
    return Text(passages, sum(len(_WORD.findall(passage)) for passage in passages), len(raw))


def _split(text: str) -> list[str]:
    """Split the text into passages of a size that fits a search result."""
    passages: list[str] = []
    gathered: list[str] = []
    for paragraph in _PARAGRAPH.split(text.replace("\r\n", "\n")):
        tokens = [token for token in paragraph.split() if not _RULE.fullmatch(token)]
        while tokens:
            room = PASSAGE_TOKENS - len(gathered)
            gathered += tokens[:room]
            tokens = tokens[room:]
            if len(gathered) >= PASSAGE_TOKENS:
                passages.append(" ".join(gathered))
                gathered = []
    if gathered:
        passages.append(" ".join(gathered))
    return passages
