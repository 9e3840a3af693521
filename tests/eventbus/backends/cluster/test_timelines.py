"""Timelines of a cluster: maps of slots, the verdict on a shard, and a model whose shards go back at random points."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.eventbus.backends.cluster.model import CHANNELS, Model

MOVABLE = (*CHANNELS, "timeline", *(f"timeline{n}" for n in range(4)))

GENTLE = (
    st.tuples(st.just("emit"), st.integers(0, 1), st.sampled_from(CHANNELS)),
    st.tuples(st.just("emit"), st.integers(0, 1), st.sampled_from(CHANNELS)),
    st.tuples(st.just("move"), st.sampled_from([f"{{{tag}}}" for tag in MOVABLE]), st.integers(0, 2)),
    st.tuples(st.just("toggle"), st.integers(0, len(CHANNELS) + 1)),
    st.tuples(st.just("rest"), st.integers(0, 1)),
    st.tuples(st.just("pause"), st.sampled_from([100, 1_000, 2_500])),
)
ROUGH = (
    *GENTLE,
    st.tuples(st.just("roll_back"), st.integers(0, 2), st.integers(0, 20)),
    st.tuples(st.just("flush"), st.integers(0, 2)),
    st.tuples(st.just("die"), st.integers(0, 1)),
)


def play(actions: list[tuple[object, ...]]) -> Model:
    model = Model()
    # Each page has received an event: a page without a position has nothing to compare.
    for name in CHANNELS:
        model.emit(0, name)
    for page in model.pages:
        page.declared.clear()
    for name, *given_ in actions:
        getattr(model, str(name))(*given_)
    model.end()
    return model


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(*ROUGH), max_size=25))
def test_each_acknowledged_event_is_received_or_declared(actions: list[tuple[object, ...]]) -> None:
    model = play(actions)
    for page in model.pages:
        assert model.acknowledged[page.channel] <= page.received | page.declared


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(*GENTLE), max_size=25))
def test_moved_slots_declare_nothing(actions: list[tuple[object, ...]]) -> None:
    model = play(actions)
    for page in model.pages:
        assert not page.declared
        assert model.acknowledged[page.channel] <= page.received
