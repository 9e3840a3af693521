"""The rate per channel: the trailing state always goes out, and a topic's order stays."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventbus.flow.rate_limiter import ChannelRateLimiter
from eventbus.protocol.policy import Keep


@dataclass(frozen=True)
class Item:
    n: int
    channel: str = "user:1"
    topic: str = "user:1:operation:1"
    keep: Keep = "latest"
    key: str | None = "k"


def test_within_the_rate_all_go() -> None:
    throttle: ChannelRateLimiter[Item] = ChannelRateLimiter(2)
    assert throttle.admit(Item(1), 0.0) == (True, None)
    assert throttle.admit(Item(2), 0.0) == (True, None)
    assert not throttle.holding


def test_above_it_the_newest_is_held_and_goes_when_it_is_due() -> None:
    throttle: ChannelRateLimiter[Item] = ChannelRateLimiter(1)
    throttle.admit(Item(1), 0.0)
    assert throttle.admit(Item(2), 0.1) == (False, None)
    assert throttle.admit(Item(3), 0.2) == (False, Item(2))
    assert throttle.next_due(0.2) is not None
    assert throttle.due(0.5) == []
    assert throttle.due(1.0) == [Item(3)]
    assert throttle.next_due(1.0) is None


def test_nothing_events_are_not_held() -> None:
    throttle: ChannelRateLimiter[Item] = ChannelRateLimiter(1)
    passing = Item(1, keep="nothing", key=None)
    assert throttle.admit(passing, 0.0) == (True, None)
    assert throttle.admit(passing, 0.25) == (False, None)
    assert not throttle.holding
    assert throttle.retry_after("user:1", 0.25) == 0.75


def test_what_follows_in_the_topic_lets_go_first() -> None:
    throttle: ChannelRateLimiter[Item] = ChannelRateLimiter(1)
    other = Item(9, topic="user:1:operation:2", key="o")
    throttle.admit(Item(1), 0.0)
    throttle.admit(Item(2), 0.0)
    throttle.admit(other, 0.0)
    assert throttle.release("user:1", Item(1).topic) == [Item(2)]
    assert throttle.release_all() == [other]


def test_channels_do_not_share() -> None:
    throttle: ChannelRateLimiter[Item] = ChannelRateLimiter(1)
    throttle.admit(Item(1), 0.0)
    assert throttle.admit(Item(2, channel="user:2"), 0.0) == (True, None)


@given(
    st.lists(st.tuples(st.floats(0, 0.5), st.integers(1, 3), st.integers(1, 2)), min_size=1, max_size=60),
    st.integers(1, 5),
)
def test_the_last_of_each_key_goes_out_and_the_rate_holds(steps: list[tuple[float, int, int]], rate: int) -> None:
    throttle: ChannelRateLimiter[Item] = ChannelRateLimiter(rate)
    now, out, last = 0.0, [], {}
    for n, (pause, channel, key) in enumerate(steps):
        now += pause
        out += [(now, item) for item in throttle.due(now)]
        item = Item(n, channel=f"user:{channel}", key=f"k{key}")
        last[item.channel, item.key] = item
        goes, _ = throttle.admit(item, now)
        if goes:
            out.append((now, item))
    while (pause := throttle.next_due(now)) is not None:
        now += pause + 1e-6
        out += [(now, item) for item in throttle.due(now)]
    for (channel, key), item in last.items():
        assert [sent for _, sent in out if (sent.channel, sent.key) == (channel, key)][-1] == item
    for channel in {item.channel for _, item in out}:
        moments = [moment for moment, item in out if item.channel == channel]
        for i, begin in enumerate(moments):
            within = sum(moment <= begin + 1.0 for moment in moments[i:])
            assert within <= 2 * rate + 1


def test_a_newcomer_does_not_overtake_what_is_held_of_its_channel() -> None:
    limiter: ChannelRateLimiter[Item] = ChannelRateLimiter(1)
    held, newcomer = Item(2), Item(3, topic="user:1:operation:2", key="other")
    limiter.admit(Item(1), 0.0)
    assert limiter.admit(held, 0.0) == (False, None)
    assert limiter.admit(newcomer, 1.5) == (False, None), "a token is there, and the older state goes first"
    assert limiter.due(1.5) == [held]
    assert limiter.due(2.5) == [newcomer]


def test_idle_channels_are_forgotten_and_those_that_hold_something_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventbus.flow.rate_limiter._CHANNELS", 3)
    limiter: ChannelRateLimiter[Item] = ChannelRateLimiter(1)
    for n in range(2):
        limiter.admit(Item(n), 0.0)  # user:1 holds the second one
    for n in range(2, 6):
        limiter.admit(Item(n, channel=f"user:{n}"), 0.0)
    assert list(limiter._channels) == ["user:1", "user:4", "user:5"], "the longest idle go first"
    limiter.retry_after("user:4", 0.0)
    limiter.admit(Item(6, channel="user:6"), 0.0)
    assert list(limiter._channels) == ["user:1", "user:4", "user:6"]
    assert limiter.due(1.0) == [Item(1)]


def test_what_was_released_is_held_no_longer() -> None:
    limiter: ChannelRateLimiter[Item] = ChannelRateLimiter(1)
    for n in range(3):
        limiter.admit(Item(n), 0.0)
    assert limiter.release("user:1", "user:1:operation:2") == []
    assert limiter.holding
    assert limiter.release("user:1", Item(0).topic) == [Item(2)]
    assert not limiter.holding
    assert limiter.next_due(0.0) is None
    assert limiter.release_all() == []


def test_the_longest_held_goes_first_and_no_more_than_the_rate() -> None:
    limiter: ChannelRateLimiter[Item] = ChannelRateLimiter(2)
    for n in range(6):
        limiter.admit(Item(n, key=f"k{n}"), 0.0)
    assert limiter.next_due(0.25) == 0.25
    assert limiter.due(0.5) == [Item(2, key="k2")]
    assert limiter.due(1.5) == [Item(3, key="k3"), Item(4, key="k4")]
    assert limiter.holding
    assert limiter.due(2.0) == [Item(5, key="k5")]
    assert not limiter.holding
