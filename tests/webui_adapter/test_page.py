"""The page of the tests follows the rules for clients: the golden sequences, which the TypeScript tests read too."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.webui_adapter.gateways import ROOT
from tests.webui_adapter.page import Page

SEQUENCES = json.loads((ROOT / "tests" / "wire" / "sequences.json").read_text())


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in SEQUENCES])
def test_sequences(case: dict[str, Any]) -> None:
    page = Page(case["start"])
    for number, step in enumerate(case["steps"]):
        before = len(page.events)
        page.receive(step["frame"])
        assert (len(page.events) > before) == step["delivered"], f"step {number}: {step['frame']}"
        assert page.cursor == step["cursor"], f"step {number}: {step['frame']}"
