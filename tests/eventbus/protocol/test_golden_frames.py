"""The golden frames of tests/wire/, read by this side; the TypeScript tests read the same files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eventbus.errors import InvalidCursor, InvalidName, InvalidRecord
from eventbus.protocol.cursor import format_cursor, parse_cursor
from eventbus.protocol.records import parse_publication
from eventbus.protocol.topics import channel_of, check_pattern, check_topic, matches, whole_channel

WIRE = Path(__file__).parents[2] / "wire"


def cases(name: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in json.loads((WIRE / f"{name}.json").read_text())]


@pytest.mark.parametrize("case", cases("cursors"))
def test_cursors(case):
    if case["parsed"] is None:
        with pytest.raises(InvalidCursor):
            parse_cursor(case["text"])
        return
    parsed = parse_cursor(case["text"])
    assert {
        channel: {"epoch": position.epoch or None, "offset": position.offset} for channel, position in parsed.items()
    } == case["parsed"]
    assert parse_cursor(format_cursor(parsed)) == parsed


@pytest.mark.parametrize("case", cases("names"))
def test_names(case):
    text, kind = case["text"], case["kind"]
    if kind == "invalid":
        with pytest.raises(InvalidName):
            check_pattern(text)
    elif kind == "channel":
        assert channel_of(whole_channel(text)) == text
    else:
        (check_topic if kind == "topic" else check_pattern)(text)
        assert channel_of(text) == case["channel"]


@pytest.mark.parametrize("case", cases("matches"))
def test_patterns_match(case):
    assert matches(case["pattern"], case["topic"]) is case["matches"]


@pytest.mark.parametrize("case", cases("publications"))
def test_publications(case):
    payload = case["publication"].encode()
    if case["parsed"] is None:
        with pytest.raises(InvalidRecord):
            parse_publication(payload)
        return
    publication = parse_publication(payload)
    assert (publication.epoch, publication.before) == (case["parsed"]["epoch"], case["parsed"]["before"])
    assert [
        {
            "offset": record.offset,
            "lane": "hnl"[record.lane],
            "keep": record.keep,
            "expires_ms": record.expires,
            "emitted_us": record.emitted,
            "type": record.type,
            "topic": record.topic,
            "key": record.key,
            "event": record.event.decode(),
        }
        for record in publication.records
    ] == case["parsed"]["records"]
