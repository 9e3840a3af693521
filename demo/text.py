"""Reading, splitting and tokenising one document."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["NotText", "Text", "read_text"]

PASSAGE_WORDS: Final = 80
_WORD = re.compile(r"\w+")
_RULE = re.compile(r"[\W_]{3,}")  # a line drawn with characters, or the frame of a table
_PARAGRAPH = re.compile(r"\n\s*\n")
# What no reader sees and some displays obey; tab and line feed stay.
_CONTROL = dict.fromkeys([*range(9), 11, 12, *range(14, 32), 127])


class NotText(ValueError):
    """The file cannot be read as text. The message is for the person who uploaded it."""


@dataclass(frozen=True, slots=True)
class Text:
    """A document, ready to be indexed."""

    passages: tuple[str, ...]
    words: int
    size: int


def read_text(path: Path, limit: int) -> Text:
    """Read a file of at most ``limit`` bytes.

    Raises:
        NotText: not UTF-8, with NUL bytes, too large, or not readable.
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
    """Paragraphs, short ones joined and long ones cut, so that a passage is something one can read in a result."""
    passages: list[str] = []
    gathered: list[str] = []
    for paragraph in _PARAGRAPH.split(text.replace("\r\n", "\n")):
        words = [word for word in paragraph.split() if not _RULE.fullmatch(word)]
        while words:
            room = PASSAGE_WORDS - len(gathered)
            gathered += words[:room]
            words = words[room:]
            if len(gathered) >= PASSAGE_WORDS:
                passages.append(" ".join(gathered))
                gathered = []
    if gathered:
        passages.append(" ".join(gathered))
    return passages
