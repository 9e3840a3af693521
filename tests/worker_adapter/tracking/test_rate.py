"""Time of the next progress event and estimated rate, for any times and counts."""

from hypothesis import given
from hypothesis import strategies as st

from worker_adapter.tracking.rate import RateEstimator

# Pauses as they come: none, a hair, around the interval, long. Sixteenths, so that sums are exact.
pauses = st.lists(st.integers(0, 200).map(lambda n: n / 16), max_size=60)
counts = st.lists(st.integers(0, 1000), min_size=60, max_size=60)


@given(pauses)
def test_at_most_one_event_per_interval_and_one_when_it_is_due(waits):
    estimator, now, said = RateEstimator(1.0, 5.0), 0.0, []
    for wait in waits:
        now += wait
        due = estimator.due(now)
        assert due == (not said or now - said[-1] >= 1.0)
        if due:
            estimator.record(now, 0)
            said.append(now)
    assert len(said) <= now + 1


@given(pauses, counts)
def test_the_rate_lies_between_the_slowest_and_the_fastest_stretch(waits, steps):
    estimator, now, done = RateEstimator(1.0, 5.0), 0.0, 0
    assert estimator.record(now, done) is None
    stretches = []
    for wait, more in zip(waits, steps, strict=False):
        now, done = now + wait + 1 / 16, done + more
        stretches.append(more / (wait + 1 / 16))
        rate = estimator.record(now, done)
        assert min(stretches) - 1e-9 <= rate <= max(stretches) + 1e-9


@given(st.integers(1, 50))
def test_the_rate_forgets_what_is_older_than_the_window(fast):
    estimator = RateEstimator(1.0, 5.0)
    for second in range(10):
        estimator.record(second, second * 1000)
    for second in range(10, 20):
        rate = estimator.record(second, 9000 + (second - 9) * fast)
    assert rate == fast


def test_a_count_that_falls_begins_anew():
    estimator = RateEstimator(1.0, 5.0)
    estimator.record(0, 0)
    assert estimator.record(1, 10) == 10
    assert estimator.record(2, 0) is None
    assert estimator.record(3, 5) == 5
