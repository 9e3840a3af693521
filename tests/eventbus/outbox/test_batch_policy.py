"""When batches go, and how large they are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from eventbus.outbox.batch_policy import BatchPolicy

LINGER, BATCH = 0.005, 100
times = st.floats(0, 1e6)


def test_a_single_event_goes_immediately() -> None:
    policy = BatchPolicy(LINGER, BATCH)
    assert policy.pause(10.0, 1) <= 0


@given(times, st.integers(1, BATCH - 1), st.floats(0, 1))
def test_a_stream_lingers_after_a_batch_and_never_longer(now: float, waiting: int, later: float) -> None:
    policy = BatchPolicy(LINGER, BATCH)
    policy.taken(now, entries=3, waiting=waiting)
    pause = policy.pause(now + later, waiting)
    assert pause <= LINGER + 1e-6
    assert pause <= 0 or later < LINGER + 1e-6


@given(times, st.integers(0, 3 * BATCH))
def test_a_flush_and_an_urgent_event_end_the_linger(now: float, waiting: int) -> None:
    for note in (BatchPolicy.flush_requested, lambda policy: policy.urgent_event(now)):
        policy = BatchPolicy(LINGER, BATCH)
        policy.taken(now, entries=1, waiting=waiting)
        note(policy)
        assert policy.pause(now, waiting) <= 0
        policy.taken(now, entries=1, waiting=0)
        assert not policy.hurry, "nothing waits for it any more"


@given(times, st.integers(BATCH, 10 * BATCH))
def test_a_full_batch_does_not_linger(now: float, waiting: int) -> None:
    policy = BatchPolicy(LINGER, BATCH)
    policy.taken(now, entries=BATCH, waiting=waiting)
    assert policy.is_full(waiting)
    assert policy.pause(now, waiting) <= 0


@given(st.integers(1, 10_000), st.floats(0, 1000), st.floats(0, 20))
def test_batches_are_short_for_some_seconds_after_an_urgent_event(size: int, now: float, later: float) -> None:
    policy = BatchPolicy(LINGER, size)
    assert policy.limit(now) == size
    policy.urgent_event(now)
    limit = policy.limit(now + later)
    assert 1 <= limit <= size
    assert limit == (max(1, size // 4) if now + later < now + 5 else size)


@given(times, st.integers(1, 50))
def test_an_empty_batch_starts_no_linger(now: float, waiting: int) -> None:
    policy = BatchPolicy(LINGER, BATCH)
    policy.taken(now, entries=0, waiting=waiting)
    assert policy.pause(now + LINGER, waiting) <= 0


def test_a_stream_goes_out_in_batches_and_no_earlier_than_the_linger() -> None:
    policy = BatchPolicy(0.5, BATCH)
    policy.taken(10.0, entries=1, waiting=3)
    assert [policy.pause(now, 3) for now in (10.0, 10.25, 10.5)] == [0.5, 0.25, 0.0]
    assert policy.pause(10.0, BATCH - 1) == 0.5
    policy.taken(20.0, entries=0, waiting=3)
    assert policy.pause(20.0, 3) < 0, "an empty batch is none"


def test_the_hurry_lasts_until_nothing_waits() -> None:
    policy = BatchPolicy(0.5, BATCH)
    assert not policy.hurry
    policy.flush_requested()
    policy.taken(10.0, entries=BATCH, waiting=1)
    assert policy.pause(10.0, 1) == 0.0, "the rest of what the caller waits for"
    policy.taken(10.0, entries=1, waiting=0)
    assert policy.pause(10.0, 1) == 0.5


def test_a_batch_is_full_from_its_size_on() -> None:
    policy = BatchPolicy(0.5, 3)
    assert [policy.is_full(waiting) for waiting in (2, 3, 4)] == [False, True, True]
