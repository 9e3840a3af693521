"""Three rates that a command has to pass: its session's, its user's, the instance's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.webui_adapter.gateways import GatewayProcess, page, running
from tests.webui_adapter.parts import settings
from webui_adapter.access.rate_limits import CommandRateLimiter, CommandRateLimiters
from webui_adapter.errors import CommandRefused


class Rates:
    """Sessions that share a gateway's rates."""

    def __init__(self, **given: Any) -> None:
        self.rate_limiters = CommandRateLimiters(settings(**given), 0.0)
        self._per_session = given["message_rate_limit"]

    def session(self, user: str | None = None) -> CommandRateLimiter:
        rate = CommandRateLimiter(self._per_session, 0.0)
        self.rate_limiters.connected(rate)
        if user is not None:
            self.rate_limiters.authenticated(rate, user, 0.0)
        return rate


def sent(rate: CommandRateLimiter, count: int, now: float = 0.0) -> tuple[int, set[str]]:
    """How many of so many commands pass, and the scopes that refused the others."""
    answers = [rate.take(now) for _ in range(count)]
    return answers.count(None), {answer.scope for answer in answers if answer is not None}


def test_the_narrowest_rate_that_is_exhausted_is_the_one_that_is_said() -> None:
    own = Rates(message_rate_limit=10, user_rate_limit=15, instance_rate_limit=30)
    one, two, other, stranger = own.session("a"), own.session("a"), own.session("b"), own.session()
    assert sent(one, 20) == (10, {"session"})
    assert sent(two, 20) == (5, {"user"})
    assert sent(other, 20) == (10, {"session"})
    assert sent(stranger, 20) == (5, {"instance"})
    excess = stranger.take(0.0)
    assert excess is not None
    assert (excess.scope, excess.limit) == ("instance", 30)
    assert 0 < excess.wait <= 1 / 30
    assert stranger.take(excess.wait + 1e-9) is None, "as it was said"


def test_a_refused_command_costs_no_other_user() -> None:
    own = Rates(message_rate_limit=10, user_rate_limit=20, instance_rate_limit=40)
    greedy, same, other = own.session("a"), own.session("a"), own.session("b")
    assert sent(greedy, 10_000) == (10, {"session"})
    assert sent(same, 10_000) == (10, {"session"}), "the user's rate lost what was allowed only"
    assert sent(other, 10)[0] == 10, "and so did the instance's"
    assert sent(own.session("a"), 10_000) == (0, {"user"})
    assert sent(own.session("c"), 11) == (10, {"session"})


def test_a_user_refused_has_spent_nothing_of_the_session() -> None:
    own = Rates(message_rate_limit=10, user_rate_limit=5, instance_rate_limit=100)
    one = own.session("a")
    assert sent(one, 100) == (5, {"user"})
    assert one.own.wait(0.0) == 0


def test_a_users_rate_goes_with_the_last_session() -> None:
    own = Rates(message_rate_limit=10, user_rate_limit=15, instance_rate_limit=1000)
    sessions = [own.session("a") for _ in range(3)] + [own.session("b")]
    assert len(own.rate_limiters) == 2
    for rate in sessions[:2]:
        own.rate_limiters.disconnected(rate)
    assert len(own.rate_limiters) == 2
    own.rate_limiters.disconnected(sessions[2])
    assert len(own.rate_limiters) == 1
    own.rate_limiters.disconnected(sessions[2])
    own.rate_limiters.disconnected(own.session())
    assert len(own.rate_limiters) == 1


def visits(own: Rates, user: str, count: int, now: float = 0.0) -> int:
    """How many of so many requests over HTTP are let through."""
    through = 0
    for _ in range(count):
        with contextlib.suppress(CommandRefused):
            own.rate_limiters.requested(user, now)
            through += 1
    return through


def test_a_request_counts_towards_its_users_rate_with_or_without_a_session() -> None:
    own = Rates(message_rate_limit=10, user_rate_limit=5, instance_rate_limit=100)
    assert visits(own, "a", 3) == 3
    assert sent(own.session("a"), 100) == (2, {"user"}), "what a script has taken, a session has not"
    assert visits(own, "a", 10) == 0
    assert visits(own, "b", 10) == 5
    assert visits(own, "a", 10, now=1.0) == 5
    assert len(own.rate_limiters) == 1, "who only asks has no session"


def test_a_request_over_the_rate_says_whose_it_was() -> None:
    own = Rates(message_rate_limit=10, user_rate_limit=5, instance_rate_limit=7)
    visits(own, "a", 5)
    for user, scope, limit in (("a", "user", 5), ("c", "instance", 7)):
        visits(own, "b", 10)
        with pytest.raises(CommandRefused) as caught:
            own.rate_limiters.requested(user, 0.0)
        assert (caught.value.code, caught.value.scope, caught.value.limit) == ("rate_limited", scope, limit)
        assert caught.value.retry_ms


def test_users_who_only_ask_are_forgotten() -> None:
    own = Rates(message_rate_limit=10, user_rate_limit=5, instance_rate_limit=1_000_000)
    for n in range(1000):
        own.rate_limiters.requested(f"u{n}", 0.0)
    own.rate_limiters.requested("immediately", 0.0)
    assert len(own.rate_limiters._sessionless) == 1001, "none of them has its whole rate again"
    own.rate_limiters.requested("later", 1.0)
    assert list(own.rate_limiters._sessionless) == ["later"]


# --- over the line -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory, redis_url: str, key_prefix: str) -> Iterator[GatewayProcess]:
    with running(
        tmp_path_factory.mktemp("narrow"),
        redis_url,
        key_prefix,
        message_rate_limit=20,
        user_rate_limit=30,
        instance_rate_limit=35,
        instance="narrow",
    ) as process:
        yield process


async def test_each_refusal_names_its_scope_and_nothing_else_is_disturbed(narrow: GatewayProcess, user: str) -> None:
    async with page(narrow, user) as one, page(narrow, user) as two, page(narrow, f"{user}-b") as other:
        clients = (one, two, other)
        for client in clients:
            for i in range(24):
                await client.send(do="ping", ref=i)
            await client.until(lambda p: len(p.data_of("bus.ok")) + len(p.data_of("bus.error")) == 24, "all answers")
        errors = [error for client in clients for error in client.page.data_of("bus.error")]
        assert {error["scope"] for error in errors} == {"session", "user", "instance"}
        limits = {"session": 20, "user": 30, "instance": 35}
        for error in errors:
            assert error["code"] == "rate_limited"
            assert error["limit"] == limits[error["scope"]]
            assert 0 < error["retry_ms"] <= 60
        assert len(other.page.data_of("bus.ok")) >= 5, "the instance's share that the greedy user could not take"
        wait = max(error["retry_ms"] for error in errors)
        await asyncio.sleep(wait / 1000)
        for client in clients:
            assert (await client.request(do="ping"))["type"] == "bus.ok"
            await asyncio.sleep(wait / 1000)
