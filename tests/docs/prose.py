"""Measures the sentences of the prose: ``python -m tests.docs.prose [PATH …]``.

It counts the words of each sentence outside code blocks, tables and headings, and fails when a bound is exceeded. With
a path it prints the figures and the longest sentences of each file. Without one it reads README.md, CONTRIBUTING.md and
docs/**/*.md except the generated pages, and prints the sentences that are too long.
"""

from __future__ import annotations

import re
import statistics
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.docs.sources import ROOT, files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MEDIAN, P90, LONGEST, COLUMNS = 16, 27, 45, 100
SHOWN = 5  # longest sentences that are printed of one file

_DEFAULT = ["README.md", "CONTRIBUTING.md", "docs"]
_GENERATED = "<!-- Generated "
_ITEM = re.compile(r"^\s*(?:[-*+]|\d+\.)\s+")
_SKIPPED = re.compile(r"\s*(?:#|\||:::|!!!|\?\?\?|---|===|<|\[[^\]]+\]:|```|~~~)")
_CODE = re.compile(r"(`+)[^`].*?\1")
_LINK = re.compile(r"!?\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])?")
_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|vs|cf|no)\.", re.IGNORECASE)
_END = re.compile(r"(?<=[.!?])[\"')*_]*\s+(?=[\"'(*_]*[A-Z0-9`])")
_SUBJECT = re.compile(r"[\"'(*_]*(?:What|Who|Whoever|Whatever|Where|Wherever)\b")


@dataclass(frozen=True, slots=True)
class Sentence:
    path: Path
    line: int
    text: str

    @property
    def words(self) -> int:
        return sum(1 for token in self.text.split() if re.search(r"\w", token))


def paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """Paragraphs and list items as (line number, text on one line); no code, table or heading."""
    first, lines = 0, []
    for number, line in [*_outside_code(text), (0, "")]:
        skipped = not line.strip() or bool(_SKIPPED.match(line))
        if (skipped or _ITEM.match(line)) and lines:
            yield first, " ".join(lines)
            lines = []
        if not skipped:
            first = first if lines else number
            lines.append(_ITEM.sub("", line, count=1).strip())


def _outside_code(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers; each code block is one empty line."""
    fence = ""
    for number, line in enumerate(text.splitlines(), 1):
        mark = line.lstrip()[:3]
        if mark in ("```", "~~~") and fence in ("", mark):
            fence = "" if fence else mark
            yield number, ""
        elif not fence:
            yield number, line


def sentences(path: Path) -> list[Sentence]:
    found = []
    for number, paragraph in paragraphs((ROOT / path).read_text()):
        plain = _CODE.sub("Code", paragraph)
        plain = _LINK.sub(r"\1", plain)
        plain = _ABBREVIATION.sub("eg", plain)
        found += [Sentence(path, number, text) for text in _END.split(plain) if re.search(r"\w", text)]
    return found


def too_wide(path: Path) -> Iterator[str]:
    """Lines of prose that are not wrapped. An address cannot be wrapped."""
    for number, line in _outside_code((ROOT / path).read_text()):
        address = re.search(r"\]\([^)]*$", line[:COLUMNS])
        if len(line) > COLUMNS and not _SKIPPED.match(line) and not address:
            yield f"{path}:{number}: {len(line)} columns, at most {COLUMNS}"


def figures(words: list[int]) -> tuple[float, int, int]:
    """Median, 90th percentile and the longest."""
    ordered = sorted(words)
    return statistics.median(ordered), ordered[max(0, -(-len(ordered) * 9 // 10) - 1)], ordered[-1]


def main(arguments: list[str]) -> int:
    paths = [path for path in files(arguments or _DEFAULT) if path.suffix == ".md"]
    paths = [path for path in paths if not (ROOT / path).read_text().startswith(_GENERATED)]
    all_sentences: list[Sentence] = []
    wrong: list[str] = []
    for path in paths:
        found = sentences(path)
        wrong += too_wide(path)
        wrong += [
            f"{path}:{sentence.line}: a sentence begins with {sentence.text.split()[0]}: {sentence.text[:60]}"
            for sentence in found
            if _SUBJECT.match(sentence.text) and not sentence.text.rstrip("*_)").endswith("?")
        ]
        if not found:
            continue
        all_sentences += found
        median, p90, longest = figures([sentence.words for sentence in found])
        if arguments:
            print(f"{path}: {len(found)} sentences, median {median:g}, 90 % {p90}, longest {longest}")
        for sentence in sorted(found, key=lambda sentence: -sentence.words)[:SHOWN]:
            if sentence.words > (P90 if arguments else LONGEST):
                print(f"  {path}:{sentence.line}: {sentence.words} words: {sentence.text}")
    if not all_sentences:
        return 0
    median, p90, longest = figures([sentence.words for sentence in all_sentences])
    bounds = f"(at most {MEDIAN}, {P90}, {LONGEST})"
    print(f"all: {len(all_sentences)} sentences, median {median:g}, 90 % {p90}, longest {longest} {bounds}")
    for line in wrong:
        print(line)
    return int(bool(wrong) or median > MEDIAN or p90 > P90 or longest > LONGEST)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
