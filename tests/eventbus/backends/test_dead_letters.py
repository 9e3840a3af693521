"""An operator decides about dead letters, with the client and on the command line (real Redis)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from typer.testing import CliRunner

from eventbus import BusSettings, Event, InvalidName, RateLimited
from eventbus.backends.pending import Totals
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


async def test_dead_letters_are_listed_shown_and_counted(post: Post, dead: DeadLetters) -> None:
    first, second, _ = post.emit(Ordinary(n=1), Ordinary(n=2), Ordinary(n=3))
    await post.store.dead_letter("collection:7", "garbage", "undecodable", b"\xff\x00?")
    assert [one.id for one in dead.find(DeadLetterFilter(channel="ann"))] == [first, second]
    assert dead.count() == {"full": 2, "undecodable": 1}
    (garbage,) = dead.find(DeadLetterFilter(reason="undecodable"))
    assert (garbage.channel, garbage.record, garbage.type) == ("collection:7", None, "")
    shown = dead.show("user:ann", first)
    assert shown.record is not None
    assert (shown.reason, shown.type, shown.attempts, shown.requeues) == ("full", "pending.ordinary", 0, 0)
    assert '"n":1' in shown.readable
    assert shown.died >= shown.first > 0


async def test_dead_letters_are_selected_by_age_type_and_limit(post: Post, dead: DeadLetters) -> None:
    post.emit(*(Ordinary(n=n) for n in range(5)))
    assert len(dead.find(limit=3)) == 3
    assert dead.find(DeadLetterFilter(older_than=60)) == []
    assert len(dead.find(DeadLetterFilter(younger_than=60, type="pending.ordinary"))) == 4
    assert dead.find(DeadLetterFilter(type="pending.other")) == []


async def test_a_dead_letter_is_requeued_once_with_a_new_offset(post: Post, dead: DeadLetters) -> None:
    first, last = post.emit(Ordinary(n=1), Ordinary(n=2))
    await post.store.ack("user:ann", [last])
    chosen = DeadLetterFilter(ids=frozenset({first}), channel="ann")
    assert dead.requeue(chosen, by="eve").requeued == 1
    assert dead.requeue(chosen, by="eve").requeued == 0, "the second call has no effect"
    batch = await post.store.fetch("user:ann")
    assert [(record.id, record.offset) for record in batch.records] == [(first, 3)]
    assert batch.records[0].event.startswith(b'{"offset":3,"id":"')
    history = await post.reader.read("user:ann", 2)
    assert [entry.record.id for entry in history.log] == [first]
    with pytest.raises(NoDeadLetter):
        dead.show("ann", first)
    # It becomes a dead letter again and counts the requeue.
    post.emit(Ordinary(n=3))
    assert dead.show("ann", first).requeues == 1


async def test_invalid_content_cannot_be_requeued(post: Post, dead: DeadLetters) -> None:
    await post.store.dead_letter("user:ann", "garbage", "undecodable", b"?")
    done = dead.requeue(DeadLetterFilter(ids=frozenset({"garbage"})), by="eve")
    assert (done.requeued, done.unreadable) == (0, 1)
    assert dead.show("ann", "garbage").readable == "?"


async def test_the_totals_follow_a_purge_soon(post: Post, dead: DeadLetters) -> None:
    post.emit(*(Ordinary(n=n) for n in range(3)))
    fence = await post.store.lease("one", 30)
    assert fence is not None
    await post.store.sweep("user:ann", fence)
    assert (await post.store.totals()).dead == 2
    assert abs((await post.store.totals()).oldest_dead - now_ms()) < 90_000
    assert dead.purge(DeadLetterFilter(reason="full"), by="eve") == 2
    score = post.redis.zscore(post.keys.index, "user:ann")
    assert isinstance(score, float)
    assert score <= now_ms() + INDEX_GRACE_MS, "the next sweep is soon, not at the end of the dead letters"
    await post.store.sweep("user:ann", fence)
    assert (await post.store.totals()) == Totals(pending=1, dead=0, oldest_dead=0)
    await post.store.dead_letter("user:bob", "b1", "undecodable", b"?")
    await post.store.sweep("user:bob", fence)
    assert abs((await post.store.totals()).oldest_dead - now_ms()) < 90_000, "a channel without any hides no other"


@pytest.mark.parametrize("header", ["x ack 0 0 t user:ann -", "n some 0 0 t user:ann -", "n latest 0 0 t user:ann"])
async def test_content_that_resembles_an_event_changes_nothing(post: Post, dead: DeadLetters, header: str) -> None:
    await post.store.dead_letter(
        "user:ann", "strange", "undecodable", f'5 {header}\n{{"offset":5,"id":"strange"}}'.encode()
    )
    done = dead.requeue(DeadLetterFilter(ids=frozenset({"strange"})), by="eve")
    assert (done.requeued, done.unreadable) == (0, 1)
    assert dead.show("ann", "strange").reason == "undecodable", "it is still there"
    post.emit(Ordinary(n=1))


async def test_purged(post: Post, dead: DeadLetters) -> None:
    post.emit(*(Ordinary(n=n) for n in range(4)))
    assert dead.purge(DeadLetterFilter(reason="full"), by="eve") == 3
    assert dead.find() == []


async def test_requeues_have_a_rate_limit(post: Post, bus_settings: BusSettings) -> None:
    slow = DeadLetters(bus_settings.model_copy(update={"requeue_rate": 1.0}))
    post.emit(*(Ordinary(n=n) for n in range(60)))
    slow._requeues.spend()
    with pytest.raises(RateLimited) as caught:
        slow.requeue(DeadLetterFilter(channel="ann"), by="eve", limit=30)
    assert caught.value.limit == 1.0
    assert caught.value.retry_after > 0
    assert slow.find(), "they are still dead letters"


async def test_a_requeue_reports_the_rest_beyond_the_rate(post: Post, bus_settings: BusSettings) -> None:
    slow = DeadLetters(bus_settings.model_copy(update={"requeue_rate": 5.0, "pending_limit": 100}))
    post.emit(*(Ordinary(n=n) for n in range(41)))
    done = slow.requeue(DeadLetterFilter(reason="full"), by="eve")
    assert 5 <= done.requeued < 40
    assert done.left == 40 - done.requeued
    assert sum(slow.count().values()) == done.left
    with pytest.raises(RateLimited):
        slow.requeue(DeadLetterFilter(reason="full"), by="eve")
    assert slow.requeue(DeadLetterFilter(reason="full"), by="eve", limit=6, wait=True).requeued == 6


async def test_an_entry_of_another_program_hides_no_dead_letter_and_can_be_purged(
    post: Post, dead: DeadLetters, bus_settings: BusSettings, redis_server: RedisServer
) -> None:
    first, _ = post.emit(Ordinary(n=1), Ordinary(n=2))
    dead_key = Keys(bus_settings.key_prefix).pending("user:ann")[4]
    redis_server.client.hset(dead_key, "odd", b"rubbish\xff")
    assert [one.id for one in dead.find(DeadLetterFilter(channel="ann"))] == ["odd", first]
    assert dead.show("ann", "odd").readable.startswith("rubbish")
    done = dead.requeue(DeadLetterFilter(channel="ann"), by="eve")
    assert (done.requeued, done.unreadable) == (1, 1)
    assert dead.purge(DeadLetterFilter(ids=frozenset({"odd"})), by="eve") == 1


@pytest.mark.parametrize("channel", ["a b", "user:", "group:1", "system:x", "user:a*"])
def test_a_malformed_channel_is_refused(dead: DeadLetters, channel: str) -> None:
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


async def test_the_commands(post: Post, shell: Shell) -> None:
    first, second, last = post.emit(Ordinary(n=1), Ordinary(n=2), Ordinary(n=3))
    code, text = shell("list", "--user", "ann")
    assert code == 0
    assert first in text
    assert "pending.ordinary" in text
    assert [json.loads(line)["id"] for line in shell("list", "--json")[1].splitlines()] == [first, second]
    assert shell("list", "--older-than", "1h") == (1, "")
    assert json.loads(shell("count", "--json")[1]) == {"full": 2}
    assert '"n":1' in shell("show", "ann", first)[1]
    assert shell("show", "ann", last)[0] == 1
    assert shell("requeue")[0] == 2, "a command for all dead letters needs --all"
    assert shell("requeue", first, "--by", "eve") == (0, "requeued 1\n")
    assert shell("requeue", first)[0] == 1
    assert shell("purge", "--all", answer="n\n")[0] == 1
    code, text = shell("purge", "--all", "--yes")
    assert code == 0
    assert "purged" in text
    assert shell("list")[0] == 1
    assert shell("list", "--older-than", "soon")[0] == 2


def test_the_commands_report_that_redis_is_down(
    monkeypatch: pytest.MonkeyPatch, bus_settings: BusSettings, own_redis: RedisServer
) -> None:
    own_redis.kill()
    down = Shell(monkeypatch, bus_settings.model_copy(update={"redis_url": own_redis.url}))
    code, text = down("list")
    assert code == 3
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize(("name", "value"), [("REDIS_URL", "memory://"), ("REDIS_URL", "bogus"), ("DEAD_LIMIT", "x")])
def test_the_commands_report_wrong_settings(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"EVENTBUS_{name}", value)
    result = CliRunner().invoke(cli, ["dead-letters", "count"])
    assert result.exit_code == 2
    assert result.output.startswith("eventbus: EVENTBUS_")


async def test_a_requeue_without_memory_keeps_the_dead_letter(own_redis: RedisServer) -> None:
    settings = BusSettings(redis_url=own_redis.url, pending_limit=1)
    post = Post(settings, own_redis.url)
    first, _ = post.emit(Ordinary(n=1), Ordinary(n=2))
    own_redis.client.config_set("maxmemory-policy", "noeviction")
    own_redis.client.config_set("maxmemory", "1")  # less than any server uses
    dead = DeadLetters(settings)
    from eventbus import Unavailable  # noqa: PLC0415 - only this test needs it

    with pytest.raises(Unavailable):
        dead.requeue(DeadLetterFilter(ids=frozenset({first})), by="eve")
    assert dead.show("ann", first).reason == "full"
    own_redis.client.config_set("maxmemory", "0")
    assert dead.requeue(DeadLetterFilter(ids=frozenset({first})), by="eve").requeued == 1
    post.publisher.close()
    await post.reader.aclose()
    RedisPublisher(settings).close()


def test_a_wrong_setting_is_reported_in_one_line(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTBUS_REDIS_URL", "redis://:tiger/scott@host:6379/0")
    code, said = shell("list")
    assert code == 2
    assert said.startswith("eventbus: EVENTBUS_REDIS_URL: ")
    assert "tiger" not in said
    assert "scott" not in said
