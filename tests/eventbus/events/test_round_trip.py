"""Contract and wire agree: JSON that ``emit`` writes fits the schema, the TypeScript, the check and the test kit."""

from __future__ import annotations

import itertools
import json
import subprocess
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Optional
from uuid import UUID

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field, computed_field, create_model
from pydantic.alias_generators import to_camel

from eventbus import BusSettings, Event, InvalidPayload
from eventbus.events.encoder import EmissionBuilder
from eventbus.events.registry import Registry, registry
from eventbus.events.schema import json_schema, typescript
from eventbus.protocol.records import Record
from eventbus.testing.captured_event import read_event
from webui_adapter.channels.validation import RecordValidator

NUMBERS = itertools.count()
BUILDER = EmissionBuilder(BusSettings())


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Plain(BaseModel):
    size: float
    some_name: str = "x"


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    first_part: int
    and_rest: list[Plain] = []


class Computed(BaseModel):
    width: int

    @computed_field
    def double_width(self) -> int:
        return 2 * self.width


finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
texts = st.text(max_size=8)
plain = st.builds(Plain, size=finite, some_name=texts)
KINDS: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(-(2**53) + 1, 2**53 - 1),
    float: finite,
    str: texts,
    bool: st.booleans(),
    datetime: st.datetimes(timezones=st.just(UTC)),
    timedelta: st.timedeltas(timedelta(0), timedelta(days=99)),
    Decimal: st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-1000, max_value=1000),
    UUID: st.uuids(),
    Colour: st.sampled_from(Colour),
    Literal["a", "b"]: st.sampled_from(["a", "b"]),
    list[int]: st.lists(st.integers(0, 9), max_size=3),
    tuple[int, str]: st.tuples(st.integers(0, 9), texts),
    dict[str, float]: st.dictionaries(texts, finite, max_size=3),
    Optional[str]: st.none() | texts,  # noqa: UP045 - what pydantic sees in older code
    Plain: plain,
    Camel: st.builds(Camel, firstPart=st.integers(0, 9), andRest=st.lists(plain, max_size=2)),
    list[Computed]: st.lists(st.builds(Computed, width=st.integers(0, 9)), max_size=2),
}
NAMES = ("alpha", "beta_gamma", "delta", "epsilon_zeta_eta")


@st.composite
def event_classes(draw: st.DrawFn) -> tuple[type[Event], dict[str, Any]]:
    """A class with every feature that is allowed, and values for its members."""
    values: dict[str, Any] = {}
    members: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True)):
        kind = draw(st.sampled_from(list(KINDS)))
        values[name] = draw(KINDS[kind])
        options = draw(
            st.sampled_from(
                [
                    {},
                    {"alias": f"{name}Alias"},
                    {"serialization_alias": f"{name}Sent"},
                    {"validation_alias": f"{name}Read"},
                    {"validation_alias": AliasChoices(name, f"{name}Old")},
                    {"description": "of a member"},
                ]
            )
        )
        members[name] = (kind, Field(**options))
    base: type[Event] = Event
    if draw(st.booleans()):
        base = type("Camelled", (Event,), {"model_config": ConfigDict(alias_generator=to_camel)})
    if draw(st.booleans()):
        namespace = {"__annotations__": {}, "shown": computed_field(property(_shown))}
        base = type("Showing", (base,), namespace)
    number = next(NUMBERS)
    cls = create_model(f"Made{number}", __base__=base, __cls_kwargs__={"name": f"made.m{number}"}, **members)
    return cls, values


def _shown(self: object) -> str:
    return type(self).__name__


def made(cls: type[Event], values: dict[str, Any]) -> Event:
    """An instance, whatever names its constructor takes."""
    read = {}
    for name, field in cls.model_fields.items():
        alias = field.validation_alias
        read[alias if isinstance(alias, str) else name] = values[name]
    return cls(**read)


def frame(event: Event) -> dict[str, Any]:
    emission = BUILDER.build("user:ann:operation:1", event)
    parsed: dict[str, Any] = json.loads(b'{"offset":1,' + emission.tail)
    return parsed


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(event_classes())
def test_schema_check_and_test_kit_accept_what_emit_writes(made_up: tuple[type[Event], dict[str, Any]]) -> None:
    cls, values = made_up
    try:
        event = made(cls, values)
        sent = frame(event)
        jsonschema.Draft202012Validator(json_schema([cls])).validate(sent)
        assert read_event(cls.policy().name, sent["data"]) == event
        own = Registry()
        own.add(cls)
        assert passes(own, cls, sent)
        assert set(sent["data"]) == set(properties(cls)), "the TypeScript has the names that are sent"
    finally:
        registry.remove(cls.policy().name)


def properties(cls: type[Event]) -> dict[str, Any]:
    schema = json_schema([cls])
    (variant,) = schema["oneOf"]
    found: dict[str, Any] = schema["$defs"][variant["properties"]["data"]["$ref"].rpartition("/")[2]]["properties"]
    return found


def passes(own: Registry, cls: type[Event], sent: dict[str, Any]) -> bool:
    validator = RecordValidator(1_000_000, __import__("collections").Counter(), own)
    text = json.dumps(sent).encode()
    record = Record(1, 1, "log", 0, 0, cls.policy().name, "user:ann:operation:1", None, text)
    return list(validator.deliverable("user:ann", [record])) == [record]


def test_a_record_that_does_not_fit_its_class_is_rejected() -> None:
    class Sized(Event, name="fit.sized"):
        size: int = Field(serialization_alias="sizeSent")

    sent = frame(Sized(size=1))
    assert passes(registry, Sized, sent)
    assert not passes(registry, Sized, sent | {"data": {"sizeSent": "many"}})
    assert not passes(registry, Sized, sent | {"data": {"other": 1}})
    registry.remove("fit.sized")


def test_nan_in_a_nested_model_is_refused_where_it_is_emitted() -> None:
    class Measured(Event, name="fit.measured"):
        parts: list[Plain]
        note: str | None = None

    frame(Measured(parts=[Plain(size=1.5)]))
    with pytest.raises(InvalidPayload, match="NaN"):
        frame(Measured(parts=[Plain(size=float("nan"))]))
    with pytest.raises(InvalidPayload, match="NaN"):
        frame(Measured(parts=[Plain(size=float("inf"))]))
    registry.remove("fit.measured")


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"secret": (str, Field(exclude=True))}, "secret is excluded"),
        ({"secret": (str, Field("x", exclude=True))}, "secret is excluded"),
        ({"deep": (int, Field(validation_alias=AliasPath("a", 0)))}, "deep is written as 'deep'"),
    ],
)
def test_a_field_that_cannot_be_read_back_is_refused_at_the_class(members: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidPayload, match=says):
        create_model("Refused", __base__=Event, __cls_kwargs__={"name": "fit.refused"}, **members)
    assert registry.get("fit.refused") is None


def test_nested_models_that_cannot_read_their_json_are_refused_at_the_class() -> None:
    class Renamed(BaseModel):
        inner: int = Field(serialization_alias="outer")

    class Strict(BaseModel):
        model_config = ConfigDict(extra="forbid")
        width: int

        @computed_field
        def double(self) -> int:
            return 2 * self.width

    for kind, says in ((list[Renamed], "Renamed.inner"), (dict[str, Strict] | None, "Strict forbids")):
        with pytest.raises(InvalidPayload, match=says):
            create_model("Nesting", __base__=Event, __cls_kwargs__={"name": "fit.nesting"}, part=(kind, ...))


def test_the_typescript_of_all_features_compiles(tmp_path: Path) -> None:
    members = {
        f"member_{number}": (kind, Field(alias=f"aliasOf{number}") if number % 2 else Field())
        for number, kind in enumerate(KINDS)
    }
    cls = create_model("All", __base__=Event, __cls_kwargs__={"name": "fit.all"}, **members)
    (tmp_path / "events.ts").write_text(typescript([cls]))
    root = Path(__file__).parents[3]
    compiler = root / "webui_adapter/client/node_modules/.bin/tsc"
    done = subprocess.run(
        [compiler, "--noEmit", "--strict", tmp_path / "events.ts"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    registry.remove("fit.all")
