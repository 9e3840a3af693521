"""The registry of timelines: maps of slots, and each rule of the verdict on a shard."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventbus.backends.redis.timelines.registry import (
    ALL_SLOTS,
    Ballot,
    Joining,
    Pending,
    Registry,
    claim,
    decide,
    lose,
    timeline_of,
)
from eventbus.backends.redis.timelines.slot_map import EMPTY, SlotMap, combine
from eventbus.protocol.timeline import Timeline

RENEWAL, PATIENCE, NOW = 2_000, 3_000, 100_000
LEFT = SlotMap.read("0=1 100=")
RIGHT = SlotMap.read("0= 100=1")
KNOWN = Registry(version=7, lives=SlotMap.read("0=a 100=b"), forks=SlotMap.read("0= 100=50"))

VALUES = st.sampled_from(["", "a", "b"])
MAPS = st.lists(st.tuples(st.integers(0, 16_383), VALUES), max_size=6).map(
    lambda points: (
        combine(lambda *found: next((one for one in found if one), ""), *(SlotMap.single(*p) for p in points))
        if points
        else EMPTY
    )
)


@given(MAPS)
def test_a_map_survives_its_text(one: SlotMap) -> None:
    assert SlotMap.read(one.text) == one


@given(MAPS, MAPS, st.integers(0, 16_383))
def test_maps_are_combined_slot_by_slot(one: SlotMap, other: SlotMap, slot: int) -> None:
    both = combine(lambda left, right: left + right, one, other)
    assert both.at(slot) == one.at(slot) + other.at(slot)
    assert all(former != later for former, later in zip(both.values, both.values[1:], strict=False))


def ballot(process: str, at: int, *, life: str = "a", idle: bool = False, intact_in: str = "") -> Ballot:
    return Ballot(process, life, at, idle, "timeline0", intact_in)


def joining(life: str = "c", slots: SlotMap = LEFT, live: str = "b", *, home: bool = False) -> Joining:
    return Joining(life, slots, frozenset(live), home)


@pytest.mark.parametrize(
    ("ballots", "since", "verdict"),
    [
        ((), NOW, "pending"),
        ((), NOW - PATIENCE, "forked"),
        ((ballot("p", 90_000, intact_in="c"),), NOW, "clean"),
        ((ballot("p", 90_000, intact_in="x"),), NOW, "pending"),
        ((ballot("p", 90_000),), NOW, "pending"),
        ((ballot("p", 90_000),), NOW - PATIENCE, "forked"),
        ((ballot("p", 90_000, intact_in="c"), ballot("q", 90_500)), NOW, "pending"),
        ((ballot("p", 90_000, intact_in="c"), ballot("q", 88_000)), NOW, "clean"),
        ((ballot("p", 90_000, intact_in="c"), ballot("q", 88_001)), NOW, "pending"),
        ((ballot("p", 90_000, intact_in="c"), ballot("q", 90_000, idle=True)), NOW, "clean"),
        ((ballot("p", 90_000, intact_in="c"), ballot("q", 90_001, idle=True)), NOW, "pending"),
        ((ballot("p", 90_000, intact_in="c"), ballot("q", 90_500, life="b")), NOW, "clean"),
    ],
)
def test_verdict_on_a_life_that_took_over(ballots: tuple[Ballot, ...], since: int, verdict: str) -> None:
    pending = {"c": Pending(since, frozenset("a"), LEFT)}
    found, after = decide(replace(KNOWN, pending=pending), joining(), ballots, RENEWAL, PATIENCE, NOW)
    assert found == verdict
    assert after.accepts("c") == (verdict != "pending")
    assert after.forks.at(0) == (str(NOW) if verdict == "forked" else "")
    assert after.forks.at(100) == "50", "the other shard has not forked"
    assert after.lives.at(100) == "b"


def test_a_life_that_took_over_has_the_lives_that_do_not_serve_as_parents() -> None:
    verdict, after = decide(KNOWN, joining("c", ALL_SLOTS, "b"), [], RENEWAL, PATIENCE, NOW)
    assert verdict == "pending"
    assert after.pending == {"c": Pending(NOW, frozenset("a"), ALL_SLOTS)}


def test_a_new_shard_needs_no_verdict() -> None:
    slots = SlotMap.single(5, "1")
    verdict, after = decide(KNOWN, joining("c", slots, "ab"), [], RENEWAL, PATIENCE, NOW)
    assert verdict == "clean"
    assert [after.lives.at(slot) for slot in (4, 5, 6)] == ["a", "c", "a"]
    assert after.forks == KNOWN.forks


def test_slots_that_left_before_the_verdict_fork_too() -> None:
    pending = {"c": Pending(NOW - PATIENCE, frozenset("a"), SlotMap.single(200, "1"))}
    _, after = decide(
        replace(KNOWN, pending=pending), joining(slots=SlotMap.single(7, "1")), [], RENEWAL, PATIENCE, NOW
    )
    assert {after.forks.at(slot) for slot in (0, 7, 99, 200)} == {str(NOW)}
    assert after.forks.at(150) == "50"


def test_without_a_registry_all_slots_fork() -> None:
    verdict, after = decide(Registry(), joining(), [], RENEWAL, PATIENCE, NOW)
    assert (verdict, after.forks) == ("forked", SlotMap((0,), (str(NOW),)))
    assert [after.lives.at(slot) for slot in (0, 100)] == ["c", ""]


def test_a_registry_that_no_process_remembers_forks_all_slots() -> None:
    pending = replace(KNOWN, pending={"c": Pending(0, frozenset("a"), LEFT)})
    _, after = decide(pending, joining(home=True), [], RENEWAL, PATIENCE, NOW)
    assert combine(lambda fork: "1" if fork == str(NOW) else "", after.forks) == ALL_SLOTS


def test_a_late_statement_forks_the_slots_of_a_life_that_was_clean() -> None:
    after = lose(KNOWN, joining("a", LEFT, "b"), NOW)
    assert (after.forks.at(0), after.forks.at(100), after.lives) == (str(NOW), "50", KNOWN.lives)


def test_a_fork_number_grows_although_the_clock_went_back() -> None:
    assert lose(KNOWN, joining("b", RIGHT, "a"), 20).forks.at(100) == "51"


def test_a_registry_that_went_back_is_restored_from_memory() -> None:
    newer = Registry(version=9, lives=SlotMap.read("0=c"), forks=SlotMap.read("0=60 100="))
    assert KNOWN.remembered(newer) == Registry(9, newer.lives, SlotMap.read("0=60 100=50"))
    assert newer.remembered(KNOWN) == Registry(9, newer.lives, SlotMap.read("0=60 100=50"))


@pytest.mark.parametrize(
    ("serving", "life"),
    [
        ("0=a 5=b 6=a 100=b", "b"),  # it has moved
        ("0= 5=b 6= 100=b", "a"),  # its former life does not serve: it may have lost data
        ("0=a 5=x 6=a", "a"),  # no verdict on the new one
    ],
)
def test_a_slot_passes_to_another_life_only_while_both_serve(serving: str, life: str) -> None:
    assert claim(KNOWN, SlotMap.read(serving)).lives.at(5) == life


def test_a_slot_that_has_forked_does_not_continue_channels_without_a_timeline() -> None:
    assert timeline_of(KNOWN.forks, 0) == Timeline("c.0", "-")
    assert timeline_of(KNOWN.forks, 100) == Timeline("c.50", "")
