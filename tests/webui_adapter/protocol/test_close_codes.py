"""The tables of the documentation, the client and the golden file name the close codes of the gateway."""

from __future__ import annotations

import re
from pathlib import Path

from tests.webui_adapter.protocol.test_websocket_frames import golden
from webui_adapter.protocol.close_codes import CloseCode

REPOSITORY = Path(__file__).parents[3]
PAGE = (REPOSITORY / "docs/reference/close-codes.md").read_text()
ROW = re.compile(r"^\| (?P<codes>[\d, ]+) \|", re.MULTILINE)
RANGE = re.compile(r"^\| (\d+) to (\d+) \| (.+?) \|$", re.MULTILINE)
ACTIONS = {"reconnects with its cursor": "reconnect", "reconnects with a fresh token": "refresh", "stops": "stop"}


def listed() -> set[int]:
    """Codes of the long table."""
    return {int(code) for row in ROW.finditer(PAGE.partition("| code |")[2]) for code in row["codes"].split(",")}


def action(code: int) -> str:
    """The action of a client that the page names."""
    for first, last, text in RANGE.findall(PAGE):
        if int(first) <= code <= int(last):
            return ACTIONS[text]
    stops = re.search(r"^\| ([\d, ]+) \| stops \|$", PAGE, re.MULTILINE)
    assert stops is not None
    return "stop" if str(code) in stops[1].split(", ") else "reconnect"


def test_the_page_lists_each_code_of_the_gateway_and_no_other() -> None:
    assert {code for code in listed() if code >= 4000} == set(map(int, CloseCode))


def test_the_ranges_of_the_page_are_those_of_the_golden_file_that_the_client_keeps() -> None:
    cases = {case["code"]: case["action"] for case in golden("closecodes")}
    assert {code: action(code) for code in cases} == cases
    assert set(map(int, CloseCode)) | listed() <= cases.keys()


def test_the_protocol_page_names_no_other_code() -> None:
    named = {
        int(code) for code in re.findall(r"\b4[0-5]\d\d\b", (REPOSITORY / "docs/reference/protocol.md").read_text())
    }
    assert named <= set(map(int, CloseCode))


def test_the_client_stops_at_the_codes_of_the_page() -> None:
    source = (REPOSITORY / "webui_adapter/client/src/protocol/close_codes.ts").read_text()
    never = re.search(r"NEVER_RECONNECT = new Set\(\[([\d, ]+)\]\)", source)
    assert never is not None
    assert f"| {never[1]} | stops |" in PAGE
