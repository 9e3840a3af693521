"""Integers beyond 2**53 - 1 are refused where they are emitted, and named: a browser would round them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from eventbus import BusSettings, Event, InvalidPayload
from eventbus.events.encoder import EmissionBuilder
from eventbus.events.integers import MAX_INTEGER, integer_fields
from eventbus.events.registry import registry

builder = EmissionBuilder(BusSettings())
TOPIC = "user:42:operation:op"


class Row(BaseModel):
    number: int


class Counted(Event, name="integers.counted"):
    label: str
    size: int
    limit: int | None = None


class Anything(Event, name="integers.anything"):
    value: Any
    rows: tuple[Row, ...] = ()


class Text(Event, name="integers.text"):
    text: str
    ratio: float = 0.0


@pytest.fixture(autouse=True, scope="module")
def _names() -> Iterator[None]:
    yield
    for cls in (Counted, Anything, Text):
        registry.remove(cls.policy().name)


def test_a_class_knows_where_its_integers_are() -> None:
    assert integer_fields(Counted) == ("size", "limit")
    assert integer_fields(Anything) is None
    assert integer_fields(Text) == ()


@pytest.mark.parametrize(
    ("event", "field"),
    [
        (Counted(label="a", size=MAX_INTEGER + 1), "size"),
        (Counted(label="a", size=0, limit=-MAX_INTEGER - 1), "limit"),
        (Anything(value=10**400), "payload"),
        (Anything(value={"deep": [1, 2**60]}), "payload"),
        (Anything(value=None, rows=(Row(number=2**53),)), "payload"),
    ],
)
def test_an_integer_that_a_browser_rounds_is_refused(event: Event, field: str) -> None:
    with pytest.raises(InvalidPayload, match="EVENTBUS_LARGE_INTEGERS") as caught:
        builder.build(TOPIC, event)
    assert (caught.value.field, caught.value.limit) == (field, MAX_INTEGER)


def test_a_setting_allows_them() -> None:
    lenient = EmissionBuilder(BusSettings(large_integers="allow"))
    assert b"9007199254740992" in lenient.build(TOPIC, Counted(label="a", size=2**53)).tail


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_a_value_that_was_not_validated_is_refused() -> None:
    with pytest.raises(InvalidPayload, match="model_construct") as caught:
        builder.build(TOPIC, Counted.model_construct(label="a", size={}))
    assert caught.value.field == "size"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def largest(value: object) -> int:
    if isinstance(value, bool) or value is None or isinstance(value, str | float):
        return 0
    if isinstance(value, dict):
        return max(map(largest, value.values()), default=0)
    return max(map(largest, value), default=0) if isinstance(value, list) else abs(value)  # type: ignore[arg-type]


@given(json_values)
def test_exactly_the_large_ones_are_refused(value: object) -> None:
    event = Anything(value=value)
    if largest(value) > MAX_INTEGER:
        with pytest.raises(InvalidPayload):
            builder.build(TOPIC, event)
    else:
        data = json.loads(b"{" + builder.build(TOPIC, event).tail)["data"]
        assert data["value"] == value


@given(st.text(alphabet="0123456789", min_size=16, max_size=40))
def test_digits_in_a_text_are_no_integer(digits: str) -> None:
    builder.build(TOPIC, Anything(value=digits))
    builder.build(TOPIC, Text(text=digits))
