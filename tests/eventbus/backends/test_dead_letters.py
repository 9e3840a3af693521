"""A person decides about dead letters: through the class and the command line, on a real server."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator

import pytest
from typer.testing import CliRunner

from eventbus import BusSettings, Event, InvalidName, RateLimited
from eventbus.backends.redis.dead_letter_client import DeadLetterFilter, DeadLetters
from eventbus.backends.redis.publisher import RedisPublisher
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.backends.redis.scripts.pending import INDEX_GRACE_MS
from eventbus.cli.main import cli
from eventbus.clock import now_ms
from eventbus.errors import NoDeadLetter
from tests.conftest import RedisServer
from tests.eventbus.backends.test_pending import Ordinary, Post


class Posted(Event, name="dead.posted", lane="high"):
    n: int = 0


@pytest.fixture
async def post(bus_settings: BusSettings, redis_url: str) -> AsyncIterator[Post]:
    made = Post(bus_settings.model_copy(update={"pending_limit": 1}), redis_url)
    yield made
    made.publisher.close()
    await made.reader.aclose()


@pytest.fixture
def dead(bus_settings: BusSettings) -> DeadLetters:
    return DeadLetters(bus_settings)


async def test_found_shown_and_counted(post: Post, dead: DeadLetters) -> None:
    first, second, _ = post.emit(Ordinary(n=1), Ordinary(n=2), Ordinary(n=3))
    await post.letters.dead_letter("collection:7", "garbage", "undecodable", b"\xff\x00?")
    assert [letter.id for letter in dead.find(DeadLetterFilter(channel="ann"))] == [first, second]
    assert dead.count() == {"full": 2, "undecodable": 1}
    (letter,) = dead.find(DeadLetterFilter(reason="undecodable"))
    assert (letter.channel, letter.record, letter.type) == ("collection:7", None, "")
    shown = dead.show("user:ann", first)
    assert shown.record is not None
    assert (shown.reason, shown.type, shown.attempts, shown.requeues) == ("full", "letters.ordinary", 0, 0)
    assert '"n":1' in shown.readable
    assert shown.died >= shown.first > 0


async def test_by_age_type_and_limit(post: Post, dead: DeadLetters) -> None:
    post.emit(*(Ordinary(n=n) for n in range(5)))
    assert len(dead.find(limit=3)) == 3
    assert dead.find(DeadLetterFilter(older_than=60)) == []
    assert len(dead.find(DeadLetterFilter(younger_than=60, type="letters.ordinary"))) == 4
    assert dead.find(DeadLetterFilter(type="letters.other")) == []


async def test_requeued_once_with_a_place_of_its_own(post: Post, dead: DeadLetters) -> None:
    first, last = post.emit(Ordinary(n=1), Ordinary(n=2))
    await post.letters.ack("user:ann", [last])
    chosen = DeadLetterFilter(ids=frozenset({first}), channel="ann")
    assert dead.requeue(chosen, by="eve").requeued == 1
    assert dead.requeue(chosen, by="eve").requeued == 0, "twice is as good as once"
    owed = await post.letters.fetch("user:ann")
    assert [(record.id, record.offset) for record in owed.records] == [(first, 3)]
    assert owed.records[0].event.startswith(b'{"offset":3,"id":"')
    history = await post.reader.read("user:ann", 2)
    assert [entry.record.id for entry in history.log] == [first]
    with pytest.raises(NoDeadLetter):
        dead.show("ann", first)
    # It dies once more, and says so.
    post.emit(Ordinary(n=3))
    assert dead.show("ann", first).requeues == 1


async def test_what_is_no_event_cannot_be_requeued(post: Post, dead: DeadLetters) -> None:
    await post.letters.dead_letter("user:ann", "garbage", "undecodable", b"?")
    done = dead.requeue(DeadLetterFilter(ids=frozenset({"garbage"})), by="eve")
    assert (done.requeued, done.unreadable) == (0, 1)
    assert dead.show("ann", "garbage").readable == "?"


async def test_the_figures_follow_a_decision_soon(post: Post, dead: DeadLetters) -> None:
    post.emit(*(Ordinary(n=n) for n in range(3)))
    fence = await post.letters.lease("one", 30)
    assert fence is not None
    await post.letters.sweep("user:ann", fence)
    assert (await post.letters.totals()).dead == 2
    assert dead.purge(DeadLetterFilter(reason="full"), by="eve") == 2
    score = post.redis.zscore(post.keys.index, "user:ann")
    assert isinstance(score, float)
    assert score <= now_ms() + INDEX_GRACE_MS, "not when the letters would have ended by themselves"
    await post.letters.sweep("user:ann", fence)
    assert (await post.letters.totals()).dead == 0


@pytest.mark.parametrize("words", ["x ack 0 0 t user:ann -", "n some 0 0 t user:ann -", "n latest 0 0 t user:ann"])
async def test_what_is_nearly_an_event_harms_nobody(post: Post, dead: DeadLetters, words: str) -> None:
    await post.letters.dead_letter(
        "user:ann", "strange", "undecodable", f'5 {words}\n{{"offset":5,"id":"strange"}}'.encode()
    )
    done = dead.requeue(DeadLetterFilter(ids=frozenset({"strange"})), by="eve")
    assert (done.requeued, done.unreadable) == (0, 1)
    assert dead.show("ann", "strange").reason == "undecodable", "it is still there"
    post.emit(Ordinary(n=1))


async def test_purged(post: Post, dead: DeadLetters) -> None:
    post.emit(*(Ordinary(n=n) for n in range(4)))
    assert dead.purge(DeadLetterFilter(reason="full"), by="eve") == 3
    assert dead.find() == []


async def test_the_rate_of_requeues(post: Post, bus_settings: BusSettings) -> None:
    slow = DeadLetters(bus_settings.model_copy(update={"requeue_rate": 1.0}))
    post.emit(*(Ordinary(n=n) for n in range(60)))
    slow._requeues.spend()
    with pytest.raises(RateLimited) as caught:
        slow.requeue(DeadLetterFilter(channel="ann"), by="eve", limit=30)
    assert caught.value.limit == 1.0
    assert caught.value.retry_after > 0
    assert slow.find(), "nothing was sent of those"


async def test_no_more_than_the_rate_at_once_and_what_is_left_is_said(post: Post, bus_settings: BusSettings) -> None:
    slow = DeadLetters(bus_settings.model_copy(update={"requeue_rate": 5.0, "pending_limit": 100}))
    post.emit(*(Ordinary(n=n) for n in range(41)))
    done = slow.requeue(DeadLetterFilter(reason="full"), by="eve")
    assert 5 <= done.requeued < 40
    assert done.left == 40 - done.requeued
    assert sum(slow.count().values()) == done.left
    with pytest.raises(RateLimited):
        slow.requeue(DeadLetterFilter(reason="full"), by="eve")
    began = time.monotonic()
    assert slow.requeue(DeadLetterFilter(reason="full"), by="eve", limit=6, wait=True).requeued == 6
    assert time.monotonic() - began > 0.8


async def test_an_entry_of_somebody_else_hides_nothing_and_can_be_purged(
    post: Post, dead: DeadLetters, bus_settings: BusSettings, redis_server: RedisServer
) -> None:
    first, _ = post.emit(Ordinary(n=1), Ordinary(n=2))
    *_, letters, at, _ = Keys(bus_settings.key_prefix).pending("user:ann")
    redis_server.client.hset(letters, "odd", b"rubbish\xff")
    redis_server.client.zadd(at, {"odd": 1})
    assert [letter.id for letter in dead.find(DeadLetterFilter(channel="ann"))] == ["odd", first]
    assert dead.show("ann", "odd").readable.startswith("rubbish")
    done = dead.requeue(DeadLetterFilter(channel="ann"), by="eve")
    assert (done.requeued, done.unreadable) == (1, 1)
    assert dead.purge(DeadLetterFilter(ids=frozenset({"odd"})), by="eve") == 1


@pytest.mark.parametrize("channel", ["a b", "user:", "group:1", "system:x", "user:a*"])
def test_a_channel_that_is_none(dead: DeadLetters, channel: str) -> None:
    with pytest.raises(InvalidName):
        dead.find(DeadLetterFilter(channel=channel))


class Shell:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, settings: BusSettings) -> None:
        monkeypatch.setenv("EVENTBUS_REDIS_URL", settings.redis_url)
        monkeypatch.setenv("EVENTBUS_KEY_PREFIX", settings.key_prefix)

    def __call__(self, *args: str, answer: str | None = None) -> tuple[int, str]:
        result = CliRunner().invoke(cli, ["dead-letters", *args], input=answer)
        return result.exit_code, result.output


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, bus_settings: BusSettings) -> Shell:
    return Shell(monkeypatch, bus_settings)


async def test_on_the_command_line(post: Post, shell: Shell) -> None:
    first, second, last = post.emit(Ordinary(n=1), Ordinary(n=2), Ordinary(n=3))
    code, text = shell("list", "--user", "ann")
    assert code == 0
    assert first in text
    assert "letters.ordinary" in text
    assert [json.loads(line)["id"] for line in shell("list", "--json")[1].splitlines()] == [first, second]
    assert shell("list", "--older-than", "1h") == (1, "")
    assert json.loads(shell("count", "--json")[1]) == {"full": 2}
    assert '"n":1' in shell("show", "ann", first)[1]
    assert shell("show", "ann", last)[0] == 1
    assert shell("requeue")[0] == 2, "everything has to be said"
    assert shell("requeue", first, "--by", "eve") == (0, "requeued 1\n")
    assert shell("requeue", first)[0] == 1
    assert shell("purge", "--all", answer="n\n")[0] == 1
    code, text = shell("purge", "--all", "--yes")
    assert code == 0
    assert "purged" in text
    assert shell("list")[0] == 1
    assert shell("list", "--older-than", "soon")[0] == 2


def test_redis_away_on_the_command_line(
    monkeypatch: pytest.MonkeyPatch, bus_settings: BusSettings, own_redis: RedisServer
) -> None:
    own_redis.kill()
    away = Shell(monkeypatch, bus_settings.model_copy(update={"redis_url": own_redis.url}))
    code, text = away("list")
    assert code == 3
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize(("name", "value"), [("REDIS_URL", "memory://"), ("REDIS_URL", "bogus"), ("DEAD_LIMIT", "x")])
def test_wrong_settings_on_the_command_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"EVENTBUS_{name}", value)
    result = CliRunner().invoke(cli, ["dead-letters", "count"])
    assert result.exit_code == 2
    assert result.output.startswith("eventbus: EVENTBUS_")


async def test_out_of_memory_nothing_is_lost_by_a_requeue(own_redis: RedisServer) -> None:
    settings = BusSettings(redis_url=own_redis.url, pending_limit=1)
    post = Post(settings, own_redis.url)
    first, _ = post.emit(Ordinary(n=1), Ordinary(n=2))
    own_redis.client.config_set("maxmemory-policy", "noeviction")
    own_redis.client.config_set("maxmemory", "1mb")
    dead = DeadLetters(settings)
    from eventbus import Unavailable  # noqa: PLC0415 - only here

    with pytest.raises(Unavailable):
        dead.requeue(DeadLetterFilter(ids=frozenset({first})), by="eve")
    assert dead.show("ann", first).reason == "full"
    own_redis.client.config_set("maxmemory", "0")
    assert dead.requeue(DeadLetterFilter(ids=frozenset({first})), by="eve").requeued == 1
    post.publisher.close()
    await post.reader.aclose()
    RedisPublisher(settings).close()


def test_a_setting_that_is_wrong_is_one_line(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTBUS_REDIS_URL", "redis://:pass/word@host:6379/0")
    code, said = shell("list")
    assert code == 2
    assert said.startswith("eventbus: EVENTBUS_REDIS_URL: ")
    assert "pass" not in said
