"""The small pure parts: origins, rates, the timer wheel, the histogram, redaction, settings, close codes' counters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from pydantic import ValidationError

from eventbus.flow.token_bucket import TokenBucket
from webui_adapter.access.origins import origin_allowed
from webui_adapter.gateway.latency_histogram import LATENCY_BUCKETS, LatencyHistogram
from webui_adapter.logging_config import redact
from webui_adapter.session.timer_wheel import TimerWheel
from webui_adapter.settings import GatewaySettings

# --- origins -----------------------------------------------------------------------------------------------------

LIST = ("https://app.example.org", "http://localhost:5173")


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://app.example.org", True),
        ("http://localhost:5173", True),
        ("http://app.example.org", False),
        ("https://app.example.org:8443", False),
        ("https://app.example.org.evil.example", False),
        ("https://evil.example/https://app.example.org", False),
        ("https://APP.example.org", False),
        ("https://app.example.org/", False),
        ("https://bus.example.org", False),
        ("null", False),
        ("", False),
    ],
)
def test_with_a_list_only_it_counts(origin: str, allowed: bool) -> None:
    assert origin_allowed(origin, "bus.example.org", LIST, cookie=False) is allowed
    assert origin_allowed(origin, "bus.example.org", LIST, cookie=True) is allowed


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        ("https://bus.example.org", "bus.example.org", True),
        ("http://Bus.Example.org:8000", "bus.example.org:8000", True),
        ("http://bus.example.org", "bus.example.org:8000", False),
        ("http://evil.example", "bus.example.org", False),
        ("http://bus.example.org@evil.example", "bus.example.org", False),
        ("http://evil.example/bus.example.org", "bus.example.org", False),
        ("file://bus.example.org", "bus.example.org", False),
        ("null", "bus.example.org", False),
        ("http://[", "[", False),
        ("http://", "", False),
        ("http://x", None, False),
    ],
)
def test_without_a_list_it_is_the_requests_own_host(origin: str, host: str | None, allowed: bool) -> None:
    if origin == "http://[":
        origin, host = "http://[", "x"  # which some parsers raise for
    assert origin_allowed(origin, host, (), cookie=False) is allowed


def test_a_program_has_no_origin_a_cookie_must_have_one() -> None:
    for allowed in ((), LIST):
        assert origin_allowed(None, "bus.example.org", allowed, cookie=False)
        assert not origin_allowed(None, "bus.example.org", allowed, cookie=True)


@given(st.text(), st.text())
def test_no_origin_makes_the_check_raise(origin: str, host: str) -> None:
    origin_allowed(origin, host, (), cookie=True)


# --- rates -------------------------------------------------------------------------------------------------------


@given(st.floats(0.1, 1000), st.lists(st.floats(0, 5), max_size=200))
def test_a_rate_is_kept_and_the_wait_it_names_is_right(per_second: float, pauses: list[float]) -> None:
    now, taken, waited = 0.0, 0, 0.0
    rate = TokenBucket(per_second, now)
    for pause in pauses:
        now += pause
        wait = rate.take(now)
        assert wait >= 0
        if wait:
            waited += 1
            assert wait <= 1 / per_second + 1e-9
        else:
            taken += 1
        assert taken <= max(per_second, 1) + now * per_second + 1e-6
    wait = rate.take(now)
    if wait:
        assert rate.take(now + wait * 0.999 - 1e-9) > 0
        assert rate.take(now + wait + 1e-6) == 0


def test_a_clock_that_goes_back_gives_nothing() -> None:
    rate = TokenBucket(1, 100.0)
    assert rate.take(100.0) == 0
    assert rate.take(50.0) > 0
    assert rate.take(50.5) > 0
    assert rate.take(51.0) == 0, "nor does it take anything away"


def test_who_was_silent_for_long_has_saved_nothing() -> None:
    rate = TokenBucket(10, 0.0)
    assert [rate.take(1000.0) == 0 for _ in range(12)] == [True] * 10 + [False] * 2


# --- the wheel ---------------------------------------------------------------------------------------------------


class WheelMachine(RuleBasedStateMachine):
    """Never early, never lost, never twice, and not much later than a tick."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.wheel: TimerWheel[int] = TimerWheel(self.now, 0.25)
        self.due: dict[int, float] = {}

    @rule(item=st.integers(0, 9), after=st.floats(-2, 30) | st.sampled_from([0.01, 0.3, 0.45, 0.5, 1.2]))
    def put(self, item: int, after: float) -> None:
        self.wheel.put(item, self.now + after)
        self.due[item] = self.now + max(after, 0.0)  # a moment that has passed is the next tick

    @rule(item=st.integers(0, 9))
    def remove(self, item: int) -> None:
        self.wheel.remove(item)
        self.due.pop(item, None)

    @rule(step=st.floats(0, 10) | st.sampled_from([0.01, 0.1, 0.25, 0.26, 0.3]))
    def turn(self, step: float) -> None:
        self.now += step
        items = self.wheel.due(self.now)
        assert len(items) == len(set(items))
        for item in items:
            assert self.due.pop(item) <= self.now, "early"
        assert all(due > self.now - 0.51 for due in self.due.values()), "late"

    @invariant()
    def nothing_is_kept_for_nobody(self) -> None:
        assert set(self.wheel._where) == set(self.due)
        assert sum(map(len, self.wheel._spokes.values())) == len(self.due)
        assert len(self.wheel._spokes) <= 10 + 32 / 0.25


TestWheel = WheelMachine.TestCase


# --- the histogram -----------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.tuples(st.integers(-1_000_000, 100_000_000), st.integers(0, 1000)))))
def test_the_histogram_counts_what_was_observed(turns: list[list[tuple[int, int]]]) -> None:
    histogram, now = LatencyHistogram(), 1_790_000_000
    for turn in turns:
        histogram.observe_since(float(now), [(now * 1_000_000 - ago, count) for ago, count in turn])
    observed = [(max(0.0, ago / 1e6), count) for turn in turns for ago, count in turn]
    rows = histogram.cumulative()
    assert [name for name, _ in rows] == [*map(repr, LATENCY_BUCKETS), "+Inf"]
    for bound, (_, counted) in zip((*LATENCY_BUCKETS, float("inf")), rows, strict=True):
        # A clock's seconds since 1970 are a float, which tells a quarter of a microsecond.
        assert sum(n for seconds, n in observed if seconds <= bound - 1e-6) <= counted
        assert counted <= sum(n for seconds, n in observed if seconds <= bound + 1e-6)
    assert histogram.sum == pytest.approx(sum(seconds * count for seconds, count in observed), abs=1e-3)


# --- logs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2VjcmV0",
        "GET /ws?token=c2VjcmV0&x=1",
        "GET /ws?access_token=c2VjcmV0",
        "offered eventbus.v1, access_token.c2VjcmV0",
        "authorization: Bearer c2VjcmV0",
        "authorization: bearer c2VjcmV0",
        "{'TOKEN=c2VjcmV0'}",
    ],
)
def test_tokens_do_not_reach_the_log(text: str) -> None:
    assert "c2VjcmV0" not in redact(text)
    assert "[token]" in redact(text)


def test_the_rest_does() -> None:
    assert (
        redact("GET /ws?cursor=user:1=5f.1&token=abc&topic=x HTTP")
        == "GET /ws?cursor=user:1=5f.1&token=[token]&topic=x HTTP"
    )
    assert "\x7f" not in redact("a\x7fb")


# --- settings ----------------------------------------------------------------------------------------------------


def test_limits_of_the_original_configuration_are_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBUI_JWT_SECRET", "0123456789abcdef")
    settings = GatewaySettings()
    assert settings.max_connections_per_user == 10
    assert settings.max_total_connections == 1000
    assert settings.heartbeat_interval == 30
    assert settings.message_rate_limit == 100
    assert settings.max_message_size == 1_048_576


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBUI_JWT_SECRET", "0123456789abcdef")
    monkeypatch.setenv("WEBUI_ALLOWED_ORIGINS", " https://a.example , https://b.example,")
    monkeypatch.setenv("WEBUI_MAX_TOTAL_CONNECTIONS", "7")
    monkeypatch.setenv("WEBUI_EVENTS", "my.events,more.events")
    settings = GatewaySettings()
    assert settings.allowed_origins == ("https://a.example", "https://b.example")
    assert settings.max_total_connections == 7
    assert settings.events == ("my.events", "more.events")
    assert "0123456789abcdef" not in repr(settings)


@pytest.mark.parametrize(
    "wrong",
    [
        {"prefix": "bus"},
        {"prefix": "/a b"},
        {"prefix": "/a/"},
        {"port": 70000},
        {"on_too_many": "drop"},
        {"heartbeat_interval": 0},
    ],
)
def test_settings_that_cannot_be_meant(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        GatewaySettings(jwt_secret="0123456789abcdef", **wrong)
