"""Fraction of a progress that is done, for any weights, counts and errors."""

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventbus import InvalidStage
from worker_adapter import stages
from worker_adapter.tracking.fractions import WeightedProgress, fraction_of, time_left

counts = st.floats(-1e12, 1e12)
totals = st.none() | st.floats(-10, 1e12)
rates = st.none() | st.floats(-1e9, 1e9)
weights = st.dictionaries(st.text(max_size=5), st.floats(1e-6, 1e6), min_size=1, max_size=8)


@given(counts, totals)
def test_a_fraction_is_between_0_and_1(done, total):
    share = fraction_of(done, total)
    assert (share is None) == (total is None)
    if share is not None:
        assert 0 <= share <= 1
        assert share == 1 or done < total


@given(counts, totals, rates)
def test_time_left_is_never_negative_and_0_at_the_end(done, total, rate):
    left = time_left(done, total, rate)
    if total is None:
        assert left is None
    elif done >= total:
        assert left == 0
    elif rate is None or rate <= 0:
        assert left is None
    else:
        assert left is None or (left > 0 and math.isfinite(left))


def test_an_infinite_time_left_is_unknown():
    assert time_left(0, 1e12, 5e-324) is None


@given(weights, st.data())
def test_a_whole_only_rises_and_is_complete_exactly_at_its_end(parts, data):
    whole, previous = WeightedProgress(parts), 0.0
    names = st.sampled_from(sorted(parts))
    for name, share in data.draw(st.lists(st.tuples(names, st.none() | st.floats(0, 1)), max_size=30)):
        whole.fill(name, share)
        assert previous <= whole.done < whole.total
        previous = whole.done
    for name in parts:
        whole.fill(name, 1.0)
    assert previous <= whole.done < whole.total
    whole.finish()
    assert whole.done == whole.total == math.fsum(parts.values())
    assert whole.fraction == 1


class _Stop(Exception):
    """Leaves a stage, or all of them."""


# One stage: (name, total, steps, whether it fails), or (name, weights, the same within it, fails).
_steps = st.tuples(
    st.sampled_from("abc"),
    st.none() | st.integers(0, 20),
    st.lists(st.tuples(st.booleans(), st.integers(0, 10)), max_size=5),
    st.booleans(),
)
_three = st.fixed_dictionaries(dict.fromkeys("abc", st.floats(0.1, 10)))
_acts = st.recursive(
    st.lists(_steps, max_size=5),
    lambda inner: st.lists(_steps | st.tuples(st.sampled_from("abc"), _three, inner, st.booleans()), max_size=5),
    max_leaves=20,
)


def _act(parts, acts, look):
    for name, how, within, fails in acts:
        with contextlib.suppress(_Stop):
            if isinstance(how, dict):
                with parts.stages(name, how) as inner:
                    _act(inner, within, look)
                    if fails:
                        raise _Stop
                assert inner.share == 1
            else:
                with parts.stage(name, how) as steps:
                    for step, n in within:
                        (steps.step if step else steps.set)(n)
                        look()
                    if fails:
                        raise _Stop
                assert steps.share == 1
        look()


@given(_three, _acts, st.booleans())
def test_stages_within_stages_with_errors_anywhere(given_weights, acts, fails):
    seen = [0.0]
    parts = stages(given_weights)

    def look():
        assert seen[-1] <= parts.share < 1
        seen.append(parts.share)

    with contextlib.suppress(_Stop), parts:
        _act(parts, acts, look)
        if fails:
            raise _Stop
    assert parts.share == (seen[-1] if fails else 1)


def test_a_finished_stage_is_complete_and_a_failed_one_keeps_its_fraction():
    with stages(read=1, embed=8, store=1) as parts:
        with parts.stage("read"):
            assert parts.share == 0
        assert parts.share == 0.1
        with contextlib.suppress(_Stop), parts.stage("embed", total=4) as steps:
            steps.step()
            assert parts.share == 0.3
            raise _Stop
        assert parts.share == 0.3
        with parts.stages("embed", split=1, encode=3) as inner:
            with inner.stage("split"):
                pass
            with inner.stage("encode", total=2) as steps:
                steps.step()
            assert inner.share == 1 - 2**-53  # until it is over
        assert parts.share == pytest.approx(0.9)
        assert list(parts.track("store", "xy")) == ["x", "y"]
        assert 0.99 < parts.share < 1
    assert parts.share == 1


def test_invalid_stages_are_refused():
    for bad in ({"read": 0}, {"read": -1}, {"read": math.inf}, {"read": math.nan}, {}):
        with pytest.raises(InvalidStage):
            stages(bad)
    with stages(read=1) as parts:
        for begin in (parts.stage, parts.stages, lambda name: parts.track(name, ())):
            with pytest.raises(InvalidStage, match="no stage 'raed'; stages\\(\\) was given 'read'") as caught:
                begin("raed")
            assert caught.value.stage == "raed"
        with parts.stage("read"), pytest.raises(InvalidStage, match="runs already"):
            parts.stage("read").__enter__()
