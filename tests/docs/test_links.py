"""Links of all Markdown files lead somewhere. The strict build of the site checks those within docs/ once more."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.docs.markdown import anchors, links, markdown_files
from tests.docs.sources import ROOT

_ELSEWHERE = ("http://", "https://", "mailto:")


@pytest.mark.parametrize("path", markdown_files(), ids=str)
def test_links_lead_to_files_and_headings(path):
    broken = []
    for line, link in links(path):
        if link.startswith(_ELSEWHERE):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = Path(os.path.normpath(path.parent / name)) if name else path
        if not (ROOT / target).exists():
            broken.append(f"{path}:{line}: {link}: there is no {target}")
        elif anchor and target.suffix == ".md" and anchor not in anchors(target):
            broken.append(f"{path}:{line}: {link}: {target} has no such heading")
    assert not broken, "\n".join(broken)


def test_the_index_links_every_decision():
    folder = Path("docs/explanation/decisions")
    linked = {Path(link).name for _, link in links(folder / "index.md")}
    decisions = {path.name for path in (ROOT / folder).glob("0*.md")}
    assert decisions
    assert decisions - linked == set()
