"""Reports private words in prose and code: ``python -m tests.docs.words [PATH …]``. The list is ``words.toml``.

Without a path it reads every text file of the repository. It prints ``file:line: word (write instead)`` for each and
fails when there is one. ``--count`` prints the number in each file instead.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from tests.docs.sources import ROOT, files

if TYPE_CHECKING:
    from collections.abc import Iterator

_BINARY = frozenset({".png", ".ico", ".svg", ".woff2", ".gz"})
_LIST = tomllib.loads((Path(__file__).parent / "words.toml").read_text())
_WORDS = [(re.compile(rf"\b(?:{word})\b", re.IGNORECASE), instead) for word, instead in _LIST["words"].items()]
_ANY = re.compile(rf"\b(?:{'|'.join(_LIST['words'])})\b", re.IGNORECASE)
_CLASS = re.compile(rf"^\s*(?:export )?class ({'|'.join(_LIST['classes']['names'])})\b")
_SUBJECT = re.compile(
    rf"(?:^\s*(?:#+|//+|--+|/?\*+|[rf]?\"\"\"|>|-)\s*|^\s*|[.!?] |\b(?:help|description)=\"(?i:))"
    rf"((?:{'|'.join(_LIST['subjects']['names'])})\s[^?\"]*)(?:$|[\".])"
)
_ALLOWED = [(entry.get("path", "*"), re.compile(entry["text"])) for entry in _LIST["allowed"]]
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|_")


def skipped(path: Path) -> bool:
    return path.suffix in _BINARY or any(fnmatch(path.as_posix(), pattern) for pattern in _LIST["skipped"]["paths"])


def in_line(line: str) -> Iterator[tuple[str, str]]:
    """Private words of one line without its allowed parts, each with what to write instead."""
    split = _HUMP.sub(" ", line)
    if _ANY.search(split):
        for word, instead in _WORDS:
            yield from ((found[0], instead) for found in word.finditer(split))
    if found := _CLASS.match(line):
        yield found[0].strip(), "see the glossary"


def _without(allowed: list[re.Pattern[str]], text: str) -> str:
    """The text with its allowed parts blanked out."""
    for pattern in allowed:
        text = pattern.sub(lambda match: "·" * len(match[0]), text)
    return text


def in_file(path: Path) -> Iterator[str]:
    allowed = [text for pattern, text in _ALLOWED if fnmatch(path.as_posix(), pattern)]
    for word, instead in in_line(_HUMP.sub(" ", _without(allowed, path.as_posix()))):
        yield f"{path}:0: {word} in the path ({instead})"
    prose = path.suffix == ".md"
    for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
        rest = _without(allowed, line)
        for word, instead in in_line(rest):
            yield f"{path}:{number}: {word} ({instead})"
        if not (prose and line.startswith("#")) and (found := _SUBJECT.search(rest)):
            yield f"{path}:{number}: a sentence begins with {found[1].split()[0]} (name the subject)"


def main(arguments: list[str]) -> int:
    paths = [path for path in files([name for name in arguments if name != "--count"]) if not skipped(path)]
    found = [line for path in paths for line in in_file(path)]
    if "--count" in arguments:
        for name, count in Counter(line.partition(":")[0] for line in found).most_common():
            print(f"{count:6} {name}")
    elif found:
        print("\n".join(found))
    sys.stdout.flush()
    print(f"{len(found)} private words in {len(paths)} files", file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
