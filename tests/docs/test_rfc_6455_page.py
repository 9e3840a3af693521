"""docs/reference/rfc-6455.md has the stored result of Autobahn's test suite."""

from __future__ import annotations

import re

from tests.autobahn.results import WAYS, failed, of_behavior, stored
from tests.docs.sources import ROOT

PAGE = (ROOT / "docs" / "reference" / "rfc-6455.md").read_text()
ROWS = {"OK": "OK", "non-strict": "NON-STRICT", "informational": "INFORMATIONAL"}


def test_the_table_is_the_stored_result():
    found = {way: of_behavior(outcomes) for way, outcomes in stored().items()}
    for row, behavior in ROWS.items():
        cells = re.search(rf"^\| {row} \| (\d+) \| (\d+) \|$", PAGE, re.MULTILINE)
        assert cells, row
        assert [int(cell) for cell in cells.groups()] == [found[way][behavior] for way in WAYS]
    assert [failed(stored()[way]) for way in WAYS] == [[], []]


def test_every_case_that_is_not_ok_is_explained():
    explained = set()
    for first, last in re.findall(r"(\d+(?:\.\d+)+)(?: to (\d+(?:\.\d+)+))?", PAGE.partition("## Cases")[2]):
        head, _, number = first.rpartition(".")
        end = int(last.rpartition(".")[2]) if last else int(number)
        explained |= {f"{head}.{n}" for n in range(int(number), end + 1)}
    for way in WAYS:
        assert {case for case, outcome in stored()[way].items() if outcome.behavior != "OK"} <= explained, way
