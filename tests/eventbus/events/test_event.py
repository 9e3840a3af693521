"""Event classes: the policy is in the class statement, mistakes are errors there, and name what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest
from pydantic import ValidationError

from eventbus import DuplicateEventName, Event, InvalidName, InvalidPayload
from eventbus.events.registry import registry


@pytest.fixture(autouse=True)
def _own_names() -> Iterator[None]:
    before = {cls.policy().name for cls in registry}
    yield
    for cls in list(registry):
        if cls.policy().name not in before:
            registry.remove(cls.policy().name)


def test_a_class_carries_its_policy():
    class Embedded(Event, name="chunk.embedded", lane="low", keep="latest", ttl=timedelta(hours=1), key="document"):
        document: str

    policy = Embedded.policy()
    assert (policy.name, policy.lane, policy.keep, policy.key) == ("chunk.embedded", "low", "latest", ("document",))
    assert policy.ttl_seconds == 3600
    assert registry.get("chunk.embedded") is Embedded


def test_the_defaults_keep_an_event():
    class Plain(Event, name="plain.event"):
        pass

    policy = Plain.policy()
    assert (policy.lane, policy.keep, policy.ttl, policy.deliver) == ("normal", "log", None, "live")


def test_a_second_class_of_a_name_is_an_error_that_names_both():
    class First(Event, name="taken.name"):
        pass

    with pytest.raises(DuplicateEventName) as caught:

        class Second(Event, name="taken.name"):
            pass

    assert "First" in str(caught.value)
    assert "Second" in str(caught.value)
    assert registry.get("taken.name") is First


def test_a_base_without_a_name_cannot_be_emitted_but_inherited():
    class Base(Event):
        document: str

    class Named(Base, name="named.child"):
        pass

    with pytest.raises(InvalidPayload, match="no event name"):
        Base.policy()
    assert Named(document="a").document == "a"


def test_a_child_does_not_inherit_its_parents_name():
    class Parent(Event, name="parent.event"):
        pass

    class Child(Parent):
        pass

    with pytest.raises(InvalidPayload):
        Child.policy()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "Upper.case"}, "name"),
        ({"name": "with space"}, "name"),
        ({"name": "line\nbreak"}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"name": "bus.hello"}, "name"),
        ({"name": "a.b", "lane": "urgent"}, "lane"),
        ({"name": "a.b", "keep": "forever"}, "keep"),
        ({"name": "a.b", "deliver": "maybe"}, "deliver"),
        ({"name": "a.b", "ttl": timedelta(0)}, "ttl"),
        ({"name": "a.b", "key": "document"}, "key"),
        ({"name": "a.b", "keep": "latest", "key": "missing"}, "key"),
        ({"name": "a.b", "keep": "nothing", "deliver": "ack"}, "deliver"),
    ],
)
def test_a_policy_that_cannot_hold_is_refused_at_the_class(options, field):
    with pytest.raises((InvalidName, InvalidPayload)) as caught:
        type("Wrong", (Event,), {"__module__": __name__, "__annotations__": {"document": str}}, **options)
    assert caught.value.field == field
    assert "a.b" not in {cls.policy().name for cls in registry}


def test_payloads_are_strict_about_what_json_and_the_page_can_hold():
    class Strict(Event, name="strict.event"):
        done: float

    with pytest.raises(ValidationError):
        Strict(done=1.0, extra=2)
    with pytest.raises(ValidationError):
        Strict(done=float("nan"))
    event = Strict(done=1.0)
    with pytest.raises(ValidationError):
        event.done = 2.0
    assert json.loads(event.model_dump_json()) == {"done": 1.0}
