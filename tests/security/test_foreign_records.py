"""Bytes of a foreign producer in Redis disturb no other record. Pure."""

from __future__ import annotations

import contextlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventbus.errors import InvalidRecord
from eventbus.protocol.records import Record, parse_publication, parse_redelivery, read_record
from webui_adapter.channels.validation import RecordValidator

CHANNEL = "user:42"
TOPIC = f"{CHANNEL}:operation:op"
BODY = b'{"offset":1,"id":"i1","type":"gw.note","topic":"user:42:operation:op","time":0,"data":{"n":1}}'

# Pieces that a publication is made of, whole and damaged.
numbers = st.sampled_from([b"0", b"1", b"-1", b"9" * 17, b"9" * 5000, b"1_0", b"", "\u0661".encode(), b"1e3"])
fields = st.sampled_from([b"abcd", b"again", b"n", b"log", b"ack", b"gw.note", b"-", b"\xff", b"\r"]) | st.binary(
    max_size=9
)
lines = st.lists(numbers | fields, max_size=9).map(b" ".join)
payloads = st.lists(lines | st.just(BODY), max_size=5).map(b"\n".join) | st.binary(max_size=200)


@given(payloads)
def test_a_parser_raises_nothing_else(payload: bytes) -> None:
    for parse in (parse_publication, parse_redelivery):
        with contextlib.suppress(InvalidRecord):
            parse(payload)  # type: ignore[operator]
    read_record(payload, 7)


def test_a_number_of_thousands_of_digits_is_an_invalid_record() -> None:
    for payload in (
        b"abcd " + b"9" * 5000,
        b"abcd 0\n" + b"9" * 5000 + b" n log 0 0 gw.note " + TOPIC.encode() + b" -\n{}",
    ):
        with pytest.raises(InvalidRecord):
            parse_publication(payload)


def foreign(event: bytes = BODY, type_: str = "gw.note") -> Record:
    return Record(1, 1, "log", 0, 0, type_, TOPIC, None, event)


@pytest.mark.parametrize(
    "record",
    [
        foreign(BODY.replace(b"i1", b"caf\xe9")),
        foreign(BODY.replace(b',"id"', b',\r"id"')),
        foreign(type_=""),
        foreign(type_="bus.close"),
        foreign(type_="bus.hello"),
        foreign(type_="gw.note\rdata:"),
        foreign(type_="Gw.Note"),
        foreign(type_="x" * 65),
    ],
    ids=[
        "latin-1",
        "carriage return",
        "no type",
        "bus.close",
        "bus.hello",
        "type of two lines",
        "capitals",
        "long type",
    ],
)
def test_a_record_that_no_client_could_read_is_rejected_alone(record: Record) -> None:
    validator = RecordValidator(1000, Counter())
    good = foreign()
    assert validator.deliverable(CHANNEL, [good, record, good]) == [good, good]
    assert [rejected.reason for rejected in validator.rejected] == ["undecodable"]


def test_text_of_any_language_is_delivered() -> None:
    records = [foreign(BODY.replace(b"i1", "é 索 🙂".encode()))]
    assert RecordValidator(1000, Counter()).deliverable(CHANNEL, records) is records
