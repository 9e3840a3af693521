"""Revocations in all backends: what is kept, in which order, and for how long."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import redis
from typer.testing import CliRunner

from eventbus import AsyncSessions, BusSettings, InvalidName, Sessions, TooManyRevocations
from eventbus.backends.factory import connect, connect_revocation_store
from eventbus.backends.memory.adapters import MemoryBroker
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.backends.redis.subscriber import RedisSubscriber
from eventbus.backends.revocations import (
    ENDED_LIFE,
    Revocation,
    RevocationStore,
    end_sessions,
    parse_revocation,
    revoke_token,
    revoke_tokens,
)
from eventbus.cli.main import cli
from eventbus.errors import InvalidRecord
from tests.eventbus.backends.heard import Heard
from tests.webui_adapter.gateways import eventually

DAY = 86_400


@pytest.fixture(params=["redis", "cluster", "memory"])
async def store(request: pytest.FixtureRequest, bus_settings: BusSettings) -> AsyncIterator[RevocationStore]:
    settings = bus_settings.model_copy(update={"revocation_limit": 5, "revocation_ttl": timedelta(days=1)})
    broker = None
    if request.param == "cluster":
        settings = settings.model_copy(update={"redis_url": request.getfixturevalue("redis_cluster").url})
    if request.param == "memory":
        settings = settings.model_copy(update={"redis_url": "memory://"})
        broker = MemoryBroker(settings)
    _, reader = connect(settings, broker=broker)
    found = connect_revocation_store(settings, reader, broker=broker)
    assert found is not None
    yield found
    await reader.aclose()


async def test_changes_are_read_in_order_and_each_once(store: RevocationStore) -> None:
    assert await store.changes(0) == []
    ended = await store.revoke(end_sessions("ann", "a talk is over", "boss"))
    token = await store.revoke(revoke_token("j-1", "", "boss"))
    assert [ended, token] == await store.changes(0)
    assert await store.changes(ended.number) == [token]
    again = await store.revoke(end_sessions(7, "", "boss"))
    assert again.subject == "7"
    later = await store.revoke(end_sessions("ann", "another talk is over", "boss"))
    assert ended.number < token.number < again.number < later.number
    assert await store.changes(token.number) == [again, later], "one entry for each user and kind"


async def test_what_an_entry_says(store: RevocationStore) -> None:
    now = time.time()
    user = await store.revoke(revoke_tokens("ann", None, "lost laptop", "boss"))
    assert (user.kind, user.subject, user.by, user.reason) == ("user", "ann", "boss", "lost laptop")
    assert now < user.issued_before <= now + 2, "the next whole second: tokens of this one are refused too"
    assert abs(user.at - now * 1000) < 5_000
    assert abs(user.until - user.at - DAY * 1000) <= 1000
    ended = await store.revoke(end_sessions("ann", "", "boss"))
    assert ended.issued_before == -1
    assert abs(ended.until - ended.at - ENDED_LIFE * 1000) <= 1000


async def test_a_later_revocation_lets_in_no_earlier_token(store: RevocationStore) -> None:
    first = await store.revoke(revoke_tokens("ann", 2_000_000_000.5, "", "boss"))
    assert first.issued_before == 2_000_000_001
    second = await store.revoke(revoke_tokens("ann", 1_000, "", "boss"))
    assert second.issued_before == 2_000_000_001
    assert second.until >= first.until


async def test_a_revocation_that_finds_no_room_is_an_error(store: RevocationStore) -> None:
    for n in range(5):
        await store.revoke(revoke_token(f"j-{n}", "", "boss"))
    with pytest.raises(TooManyRevocations, match="EVENTBUS_REVOCATION_LIMIT") as caught:
        await store.revoke(revoke_token("one more", "", "boss"))
    assert caught.value.limit == 5
    assert (await store.revoke(revoke_token("j-3", "known already", "boss"))).reason == "known already"
    assert len(await store.changes(0)) == 5


async def test_what_is_over_makes_room(bus_settings: BusSettings, redis_url: str) -> None:
    settings = bus_settings.model_copy(update={"revocation_limit": 2})
    keys = Keys.of(settings)
    with Sessions(settings) as sessions, redis.Redis.from_url(redis_url) as client:
        sessions.revoke_token("j-1")
        sessions.revoke_token("j-2")
        client.zadd(keys.revocations[2], {"token j-1": 1})
        sessions.revoke_token("j-3")
        assert [found.subject for found in sessions.revocations()] == ["j-2", "j-3"]


async def test_the_keys_live_as_long_as_the_last_entry(bus_settings: BusSettings, redis_url: str) -> None:
    settings = bus_settings.model_copy(update={"revocation_ttl": timedelta(days=2)})
    keys = Keys.of(settings)
    async with AsyncSessions(settings) as sessions:
        await sessions.revoke_tokens("ann")
        await sessions.end("bob", "good night")
        await sessions.revoke_token("j-1")
    with redis.Redis.from_url(redis_url) as client:
        for key in keys.revocations:
            assert 2 * DAY <= client.ttl(key) <= 2 * DAY + 120


async def test_subscribers_get_an_announcement(bus_settings: BusSettings) -> None:
    subscriber, heard = RedisSubscriber(bus_settings), Heard()
    await subscriber.start(heard)
    await eventually(lambda: heard.restorations == 1, "the subscription")
    async with AsyncSessions(bus_settings) as sessions:
        await sessions.end("ann")
    await eventually(lambda: heard.revocations == 1, "the announcement")
    await subscriber.aclose()


@pytest.mark.parametrize(
    "make",
    [
        lambda: end_sessions("a b", "", "boss"),
        lambda: end_sessions("ann", "two\nlines", "boss"),
        lambda: end_sessions("ann", "x" * 201, "boss"),
        lambda: end_sessions("ann", "", "a\nb"),
        lambda: revoke_token("", "", "boss"),
        lambda: revoke_token("a\n", "", "boss"),
        lambda: revoke_token("x" * 257, "", "boss"),
        lambda: revoke_tokens("ann", float("nan"), "", "boss"),
        lambda: revoke_tokens("ann", 1e300, "", "boss"),
        lambda: revoke_tokens("ann", 0, "", "boss"),
    ],
)
def test_requests_that_could_not_be_kept(make) -> None:
    with pytest.raises(InvalidName):
        make()


@pytest.mark.parametrize(
    ("member", "entry"),
    [
        (b"user ann", b"1 2\nboss\n"),
        (b"user ann", b"1 2 3\nboss"),
        (b"host ann", b"1 2 3\nboss\n"),
        (b"\xff", b""),
        (b"", b""),
    ],
)
def test_entries_that_another_program_wrote(member: bytes, entry: bytes) -> None:
    with pytest.raises(InvalidRecord):
        parse_revocation(member, entry, 1)


def test_a_foreign_entry_hides_no_other(bus_settings: BusSettings, redis_url: str) -> None:
    keys = Keys.of(bus_settings)
    with Sessions(bus_settings) as sessions, redis.Redis.from_url(redis_url) as client:
        client.zadd(keys.revocations[1], {"nonsense": 5})
        client.expire(keys.revocations[1], 100)
        sessions.revoke_token("j-1")
        assert [found.subject for found in sessions.revocations()] == ["j-1"]


# --- the command line --------------------------------------------------------------------------------------------


@pytest.fixture
def run(bus_settings: BusSettings):
    environment = {"EVENTBUS_REDIS_URL": bus_settings.redis_url, "EVENTBUS_KEY_PREFIX": bus_settings.key_prefix}

    def invoke(*args: str, code: int = 0, **more: str) -> str:
        result = CliRunner().invoke(cli, list(args), env={**environment, **more})
        assert result.exit_code == code, result.output
        return result.output

    return invoke


def kept(settings: BusSettings) -> list[Revocation]:
    with Sessions(settings) as sessions:
        return sessions.revocations()


def test_commands_end_and_revoke(run, bus_settings: BusSettings) -> None:
    run("tokens", "list", code=1)
    assert "ended the sessions of ann" in run("sessions", "end", "--user", "ann", "--reason", "moved", "--by", "eve")
    assert "tokens of ann issued before" in run("tokens", "revoke", "--user", "ann")
    assert "2030-01-01T00:00:00+00:00" in run(
        "tokens", "revoke", "--user", "bob", "--issued-before", "2030-01-01T01:00:00+01:00"
    )
    assert "token j-1, until" in run("tokens", "revoke", "--jti", "j-1", "--reason", "leaked")
    ended, _, bob, token = kept(bus_settings)
    assert (ended.kind, ended.by, ended.reason) == ("sessions", "eve", "moved")
    assert bob.issued_before == 1_893_456_000
    assert (token.kind, token.reason) == ("token", "leaked")
    assert len(run("tokens", "list").splitlines()) == 4
    assert '"subject": "j-1"' in run("tokens", "list", "--json")


@pytest.mark.parametrize(
    "args",
    [
        ("tokens", "revoke"),
        ("tokens", "revoke", "--user", "ann", "--jti", "j-1"),
        ("tokens", "revoke", "--jti", "j-1", "--issued-before", "2030-01-01"),
        ("tokens", "revoke", "--user", "ann", "--issued-before", "yesterday"),
        ("tokens", "revoke", "--user", "ann", "--issued-before", "0001-01-01"),
        ("sessions", "end", "--user", "a b"),
        ("sessions", "end"),
    ],
)
def test_mistakes_in_a_call_revoke_nothing(run, bus_settings: BusSettings, args: tuple[str, ...]) -> None:
    run(*args, code=2)
    assert kept(bus_settings) == []


def test_commands_without_redis_or_without_room(run) -> None:
    assert "Redis is not available" in run(
        "sessions", "end", "--user", "ann", code=3, EVENTBUS_REDIS_URL="redis://127.0.0.1:1"
    )
    run("tokens", "revoke", "--jti", "j-1")
    assert "EVENTBUS_REVOCATION_LIMIT" in run("tokens", "revoke", "--jti", "j-2", code=3, EVENTBUS_REVOCATION_LIMIT="1")
