"""Assertions on captured events, and what they say when they fail."""

from __future__ import annotations

import pytest

from eventbus import Event, InvalidName, announce, broadcast, emit
from eventbus.operations.events import OperationStarted
from eventbus.testing import UnknownEvent, capture, like
from eventbus.testing.captured_event import read_event
from tests.eventbus.testing.events import Indexed, State, Tagged


@pytest.fixture
def events():
    with capture() as events:
        emit("ann", "op-1", Indexed(document="a.pdf", words=3))
        emit("ann", "op-1", State(done=1))
        emit("bob", "op-2", Indexed(document="b.pdf", words=5))
        broadcast("7", Indexed(document="a.pdf", words=7), topic="documents")
        announce(State(done=9))
    return events


LIST = """\
what came, 5:
  1. Indexed(document='a.pdf', words=3) to user:ann:operation:op-1
  2. State(done=1) to user:ann:operation:op-1
  3. Indexed(document='b.pdf', words=5) to user:bob:operation:op-2
  4. Indexed(document='a.pdf', words=7) to collection:7:documents
  5. State(done=9) to system:announcements"""


def failure(assertion, *arguments, **members):
    with pytest.raises(AssertionError) as caught:
        assertion(*arguments, **members)
    return str(caught.value)


def test_finding(events):
    assert events.one(Indexed, document="b.pdf").words == 5
    assert [event.words for event in events.of(Indexed, document="a.pdf")] == [3, 7]
    assert events.of(Indexed, document="c.pdf") == []
    assert len(events.of(Event)) == len(events) == 5
    assert events.in_order(Indexed, like(State, done=1), Indexed(document="a.pdf", words=7))[2].words == 7
    events.none(Indexed, document="c.pdf")
    events.none(Tagged)


def test_addresses(events):
    assert events.to(user="ann").one(Indexed).words == 3
    assert events.to(op="op-2").one(Indexed).words == 5
    assert events.to(collection="7").one(Indexed).words == 7
    assert events.to(topic="user:ann:*").to(op="op-1").one(State).done == 1
    assert events.to(topic="system:announcements").one(State).done == 9
    events.to(user="bob").none(State)
    events.to(user="bob").to(op="op-1").none()
    assert [emitted.event.document for emitted in events.to(user="bob")] == ["b.pdf"]
    assert events.to(user="ann")[-1].topic == "user:ann:operation:op-1"
    with pytest.raises(InvalidName):
        events.to(topic="ann")


def test_members_may_have_any_name():
    with capture() as events:
        emit("ann", "op", Tagged(user="u", collection="c", tags=[]))
    assert events.to(user="ann").one(Tagged, user="u", collection="c").tags == []


def test_none_of_one_class(events):
    assert (
        failure(events.one, Indexed, document="b.pdf", words=4)
        == f"""\
no Indexed(document='b.pdf', words=4) came
nearest is 3:
  words is 5, expected 4
{LIST}"""
    )


def test_none_to_that_address(events):
    assert (
        failure(events.to(user="bob", op="op-1").one, Indexed, document="a.pdf")
        == f"""\
no Indexed(document='a.pdf') to user bob, op op-1 came
nearest is 1:
  topic is user:ann:operation:op-1, expected user bob, op op-1
{LIST}"""
    )


def test_nothing_of_that_class(events):
    assert (
        failure(events.one, OperationStarted)
        == f"""\
no OperationStarted() came
nothing of class OperationStarted came
{LIST}"""
    )


def test_nothing_at_all():
    with capture() as events:
        pass
    assert failure(events.in_order, Indexed).splitlines()[-1] == "no event came at all"


def test_several_where_one_was_to_come(events):
    assert failure(events.one, Indexed) == f"one Indexed() was to come, not 3\n{LIST}"


def test_some_where_none_was_to_come(events):
    assert failure(events.none, State, done=9) == f"no State(done=9) was to come, but one did\n{LIST}"
    assert failure(events.to(user="ann").none).startswith("no Event() to user ann was to come, but 2 did")


def test_out_of_order(events):
    assert (
        failure(events.in_order, like(Indexed, document="b.pdf"), like(State, done=1))
        == f"State(done=1) was to come after number 3; the first that came is number 2\n{LIST}"
    )
    assert failure(events.in_order, State, like(Indexed, words=9)).startswith("no Indexed(words=9) came\nnearest is 1:")


def test_a_member_that_cannot_be_is_a_mistake(events):
    with pytest.raises(TypeError, match="Indexed has no member 'dokument'; it has document, words"):
        events.none(Indexed, dokument="a.pdf")
    with pytest.raises(TypeError, match="has no member"):
        like(State, words=3)


def test_long_values_and_many_events_are_shortened():
    with capture() as events:
        for n in range(45):
            emit("ann", "1", Indexed(document=f"{n}" + "x" * 1000))
    lines = failure(events.one, Indexed, document="b").splitlines()
    assert len(lines) == 3 + 1 + 1 + 40
    assert "what came, 45:" in lines
    assert "  (5 before them)" in lines
    assert max(map(len, lines)) < 250
    assert "(1004 characters)" in lines[-1]


def test_an_event_of_no_known_class_is_listed():
    for type_, data in (("testing.unheard", {"n": 1}), ("testing.state", {"done": "soon"})):
        assert read_event(type_, data) == UnknownEvent(type=type_, data=data)
