"""Validation: each undeliverable record is rejected once, and nothing else is disturbed. Pure."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest

import tests.webui_adapter.events  # noqa: F401 - declares gw.note
from eventbus.events.registry import registry
from eventbus.protocol.history import History, LogEntry
from eventbus.protocol.records import Record, parse_record, read_record
from eventbus.protocol.topics import check_id
from tests.webui_adapter.parts import USER, history, record
from webui_adapter.channels.validation import DEAD_LETTER_BYTES, RecordValidator


def validator(limit: int = 500, *, check: bool = False) -> RecordValidator:
    return RecordValidator(limit, Counter(), registry if check else None)


def note(data: str, type_: str = "gw.note", id_: str = "i1") -> Record:
    event = f'{{"offset":1,"id":"{id_}","type":"{type_}","topic":"{USER}:operation:1","time":0,"data":{data}}}'
    return parse_record(f"1 n log 0 0 {type_} {USER}:operation:1 -".encode(), event.encode())


def test_deliverable_records_are_not_copied() -> None:
    records = [record(1), record(2)]
    assert validator().deliverable(USER, records) is records
    whole = history(2, *records)
    assert validator().filter_history(USER, whole) is whole


def test_a_record_is_rejected_once_however_often_it_is_read() -> None:
    strict = validator()
    large = note(json.dumps({"n": 1, "pad": "x" * 600}))
    for _ in range(3):
        assert list(strict.deliverable(USER, [large, record(2)])) != [large]
    assert [(undeliverable.id, undeliverable.reason) for undeliverable in strict.rejected] == [("i1", "too_large")]
    assert strict.rejected[0].content == large.line
    assert parse_record(*strict.rejected[0].content.split(b"\n", 1)).event == large.event


@pytest.mark.parametrize("id_", ["a b/c", "\x1b[2J", "*", "ü", "x" * 200])
def test_a_rejected_record_gets_an_id_that_an_operator_can_name(id_: str) -> None:
    small = validator(20)
    assert small.deliverable("user:ann", [note('{"n":1}', id_=id_)]) == []
    (undeliverable,) = small.rejected
    assert check_id(undeliverable.id, "id") == undeliverable.id


@pytest.mark.parametrize("type_", ["", "no dots", "a..b", "gw.note\x00"])
def test_a_record_with_an_invalid_type_is_undecodable_each_time(type_: str) -> None:
    any_type = validator()
    bad = replace(note('{"n":1}'), type=type_)
    for _ in range(2):
        assert any_type.deliverable(USER, [bad]) == []
        assert any_type.deliverable(USER, [note('{"n":1}')]) != []
    assert [undeliverable.reason for undeliverable in any_type.rejected] == ["undecodable"]


def test_a_part_of_a_record_is_marked_as_one() -> None:
    strict = validator()
    strict.deliverable(USER, [note(json.dumps({"n": 1, "pad": "x" * DEAD_LETTER_BYTES}))])
    assert strict.rejected[0].content.startswith(b"cut off: ")
    assert len(strict.rejected[0].content) <= DEAD_LETTER_BYTES + 10


def test_a_rejected_record_keeps_its_place_in_a_history() -> None:
    whole = history(3, record(1), record(2, pad=900), record(3))
    strained = validator().filter_history(USER, whole)
    assert [(entry.previous, entry.record.offset, bool(entry.record.event)) for entry in strained.log] == [
        (0, 1, True),
        (1, 2, False),
        (2, 3, True),
    ]


def test_an_unreadable_record_is_kept_as_it_is() -> None:
    strict = validator()
    unreadable = read_record(b"\xff no header", 7)
    assert (unreadable.offset, unreadable.topic) == (7, "")
    strict.filter_history(USER, History(history(7).position, 7, [LogEntry(0, unreadable)], []))
    assert [(undeliverable.reason, undeliverable.content) for undeliverable in strict.rejected] == [
        ("undecodable", b"\xff no header")
    ]


def test_records_are_validated_against_the_event_classes() -> None:
    strict = validator(check=True)
    good = note('{"n":1,"pad":""}')
    bad = [
        note('{"n":"one"}', id_="wrong"),
        note('{"n":1,"more":2}', id_="more"),
        note("{", id_="json"),
        note('{"n":1}', "gw.stranger", id_="stranger"),
    ]
    assert list(strict.deliverable(USER, [*bad[:2], good, *bad[2:]])) == [good]
    assert {undeliverable.id: undeliverable.reason for undeliverable in strict.rejected} == {
        "wrong": "invalid",
        "more": "invalid",
        "json": "invalid",
        "stranger": "unknown_type",
    }


def test_a_publication_that_cannot_be_parsed_is_a_dead_letter_once() -> None:
    strict = validator()
    for _ in range(2):
        strict.reject_unreadable(USER, b"\xff of another program")
    strict.reject_unreadable("user:other", b"\xff of another program")
    assert [(one.channel, one.reason, one.content) for one in strict.rejected] == [
        (channel, "undecodable", b"\xff of another program") for channel in (USER, "user:other")
    ]
    assert check_id(strict.rejected[0].id, "id")
