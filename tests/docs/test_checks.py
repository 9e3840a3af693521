"""The checks of prose, private words, docstrings and bounds find what they are for."""

from __future__ import annotations

import ast

import pytest

from tests.docs import docstrings, prose, words
from tests.layout import bounds

PAGE = """# What a heading begins with is not checked

A paragraph of two sentences. This is the second one,
on two lines, e.g. with `code. And more`.

| what | tables are skipped |
| --- | --- |

- an item
- Another item. It has two sentences.

```python
What is in code. Is skipped.
```

What this is, nobody knows.
"""


def test_sentences_are_taken_from_paragraphs_and_items(tmp_path, monkeypatch):
    (tmp_path / "page.md").write_text(PAGE)
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    found = prose.sentences(tmp_path / "page.md")
    assert [(sentence.line, sentence.words) for sentence in found] == [
        (3, 5),
        (3, 11),
        (9, 2),
        (10, 2),
        (10, 4),
        (16, 5),
    ]


def test_a_file_fails_by_its_longest_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    monkeypatch.setattr(prose, "files", lambda _: [tmp_path / "page.md"])
    (tmp_path / "page.md").write_text("Short.\n" * 99 + "One " * 45 + "end.\n")
    assert prose.main([]) == 1
    assert "46 words" in capsys.readouterr().out
    (tmp_path / "page.md").write_text("Short.\n" * 99)
    assert prose.main([]) == 0


def test_figures_are_of_all_sentences():
    assert prose.figures(list(range(1, 101))) == (50.5, 90, 100)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("the worker is told at once", ["told", "at once"]),
        ("class OwedEvents:", ["Owed"]),
        ("self.letters_left = 1", ["letters"]),
        ("def connect_letterbox():", ["letterbox"]),
        ("class Undertaker:", ["Undertaker", "class Undertaker"]),
        ("a passwords file, toldyou, bystanders", []),
        ("a stand-alone process", []),
    ],
)
def test_private_words_are_found_in_text_and_identifiers(line, found):
    assert [word for word, _ in words.in_line(line)] == found


def test_allowed_phrases_are_not_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(words, "ROOT", tmp_path)
    path = tmp_path / "module.py"
    path.write_text('"""Dead letters of a channel."""\nDeadLetter = dead_letters = 1\nletters = 2\n')
    assert [line.rpartition("module.py")[2] for line in words.in_file(path)] == [
        ":3: letters (pending event(s), dead letter(s))"
    ]


MODULE = '''
__all__ = ["Public", "convert"]

def convert(text, *, limit):
    """Convert.

    Args:
        text: what to convert.
    """
    if not text:
        raise ValueError(text)
    return 1

def private(text): ...

class Public:
    """A class.

    Args:
        size: bytes.
    """

    def __init__(self, size): ...

    def name(self) -> str:
        """Return the name."""

    def items(self) -> list[str]:
        """The items."""

    def undocumented(self): ...
'''


def test_docstrings_of_public_names_are_complete(tmp_path, monkeypatch):
    monkeypatch.setattr(docstrings, "ROOT", tmp_path)
    (tmp_path / "module.py").write_text(MODULE.replace("*, limit):", "*, limit) -> int:"))
    found = {line.split(": ", 1)[1] for line in docstrings.in_file(tmp_path / "module.py")}
    assert found == {
        "convert: Args: lacks limit",
        "convert: no Raises:",
        "convert: no Returns:",
        "Public.items: no Returns:",
        "Public.undocumented: no docstring",
    }


def test_long_functions_are_found(tmp_path):
    body = "\n".join("    pass" for _ in range(bounds.FUNCTION_LINES))
    tree = ast.parse(f"def long():\n{body}\n")
    assert len(list(bounds.functions(tmp_path, tree))) == 1
