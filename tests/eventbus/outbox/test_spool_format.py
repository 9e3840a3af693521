"""The spool's format: what is written is read, and damage shows, wherever it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventbus import BusSettings, Event
from eventbus.events.encoder import Emission, EmissionBuilder
from eventbus.operations.changes import event_stamp
from eventbus.operations.events import OperationRef
from eventbus.operations.state import TaskTransition
from eventbus.outbox.entries import TransitionEntry
from eventbus.outbox.spool_format import HEAD, Damaged, frame, frame_length, unframe

BUILDER = EmissionBuilder(BusSettings())


class Spooled(Event, name="spool.spooled", lane="high"):
    text: str


def emission(text: str = "x") -> Emission:
    return BUILDER.build("user:42:operation:9", Spooled(text=text))


@given(st.text())
def test_an_event_is_read_as_written(text: str) -> None:
    before = emission(text)
    after = unframe(frame(before))
    assert isinstance(after, Emission)
    assert after.id == before.id
    same = ("channel", "topic", "lane", "keep", "key", "expires", "lifetime", "header", "tail")
    assert [getattr(after, name) for name in same] == [getattr(before, name) for name in same]


def test_a_transition_is_read_with_its_stamp() -> None:
    operation = OperationRef("42", "9")
    stamp = event_stamp("label")
    mark = TransitionEntry(
        "user:42", operation.topic, "9", TaskTransition("done", "t1", 1, internal=False), lambda: stamp
    )
    after = unframe(frame(mark))
    assert isinstance(after, TransitionEntry)
    assert (after.channel, after.topic, after.operation, after.transition) == (
        "user:42",
        operation.topic,
        "9",
        mark.transition,
    )
    assert after.stamp() == stamp


def test_cut_anywhere_is_damaged() -> None:
    whole = frame(emission("a text"))
    for cut in range(len(whole)):
        with pytest.raises(Damaged):
            unframe(whole[:cut]) if cut >= HEAD and frame_length(whole) == cut else _read(whole[:cut])


def _read(data: bytes) -> object:
    if len(data) < frame_length(data):
        raise Damaged("cut")
    return unframe(data)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_is_damage(where: int, change: int) -> None:
    whole = bytearray(frame(emission("a text")))
    where = HEAD + where % (len(whole) - HEAD)
    whole[where] ^= change
    with pytest.raises(Damaged):
        unframe(bytes(whole))
