"""Pending events in Redis: kept until acknowledged, sent again, dead-lettered (docs/reference/redis-keys.md)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import redis

from eventbus import BusSettings, Event, InvalidPayload
from eventbus.backends.dead_letters import parse_dead
from eventbus.backends.ports import Write
from eventbus.backends.redis.pending_store import RedisPendingStore
from eventbus.backends.redis.publisher import RedisPublisher
from eventbus.backends.redis.reader import RedisReader
from eventbus.backends.redis.scripts import pending as pending_calls
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.events.encoder import EmissionBuilder
from eventbus.protocol.topics import broadcast_topic, operation_topic

USER = "user:ann"


class Urgent(Event, name="letters.urgent", lane="high", deliver="ack"):
    n: int = 0


class Ordinary(Event, name="letters.ordinary", deliver="ack"):
    n: int = 0


class Minor(Event, name="letters.minor", lane="low", deliver="ack"):
    n: int = 0


class Brief(Event, name="letters.brief", deliver="ack", ttl=timedelta(seconds=1)):
    n: int = 0


class Lasting(Event, name="letters.lasting", deliver="ack", ttl=timedelta(days=7)):
    n: int = 0


class Post:
    """One user's channel: what a worker, a gateway and an operator do with it."""

    def __init__(self, settings: BusSettings, url: str) -> None:
        self.settings = settings
        self.keys = Keys(settings.key_prefix)
        self.reader = RedisReader(settings)
        self.letters = RedisPendingStore(settings, self.reader)
        self.publisher = RedisPublisher(settings)
        self.redis = redis.Redis.from_url(url)
        self._builder = EmissionBuilder(settings)

    def emit(self, *payloads: Event, id_: str | None = None, op: str = "1") -> list[str]:
        emissions = [self._builder.build(operation_topic("ann", op), payload, id_=id_) for payload in payloads]
        (answer,) = self.publisher.publish([Write(USER, emissions)])
        assert not isinstance(answer, Exception), answer
        return [emission.id for emission in emissions]

    def dead(self) -> dict[str, str]:
        entries = self.redis.hgetall(self.keys.pending(USER)[4])
        return {id_.decode(): parse_dead(USER, id_.decode(), entry).reason for id_, entry in entries.items()}

    def pending(self) -> set[str]:
        names = self.keys.pending(USER)
        ids = {id_.decode() for id_ in self.redis.hkeys(names[0])}
        in_lanes = [id_.decode() for lane in names[1:4] for id_ in self.redis.zrange(lane, 0, -1)]
        assert sorted(in_lanes) == sorted(ids), "entries and lanes say the same"
        return ids


@pytest.fixture
async def post(bus_settings: BusSettings, redis_url: str) -> AsyncIterator[Post]:
    async for made in _post(bus_settings, redis_url):
        yield made


@pytest.fixture
async def strict_post(bus_settings: BusSettings, redis_url: str) -> AsyncIterator[Post]:
    """Short limits, so that nothing has to be waited for."""
    limits = {"pending_limit": 3, "ack_timeout": 0.001, "ack_attempts": 2, "dead_limit": 4}
    async for made in _post(bus_settings.model_copy(update=limits), redis_url):
        yield made


async def _post(settings: BusSettings, url: str) -> AsyncIterator[Post]:
    made = Post(settings, url)
    yield made
    made.publisher.close()
    await made.reader.aclose()


async def test_owed_in_lane_order_by_weight(post: Post) -> None:
    post.emit(*(Minor(n=n) for n in range(3)), *(Ordinary(n=n) for n in range(6)), *(Urgent(n=n) for n in range(18)))
    owed = await post.letters.fetch(USER)
    kinds = [record.type.removeprefix("letters.") for record in owed.records]
    assert kinds == [*["urgent"] * 16, *["ordinary"] * 4, "minor", *["urgent"] * 2, *["ordinary"] * 2, "minor", "minor"]
    assert owed.position.offset == 27
    assert not owed.more
    assert all(record.ack and b'"ack":true' in record.event for record in owed.records)


async def test_acknowledged_by_id_is_owed_no_more(post: Post) -> None:
    first, second = post.emit(Ordinary(n=1), Ordinary(n=2))
    assert await post.letters.ack(USER, [first, "never-heard-of"]) == 1
    assert await post.letters.ack(USER, [first]) == 0, "once"
    assert [record.id for record in (await post.letters.fetch(USER)).records] == [second]


async def test_acknowledged_by_position_of_this_life_only(post: Post) -> None:
    _, _, third = post.emit(Urgent(), Minor(), Ordinary())
    here = (await post.letters.fetch(USER)).position
    assert await post.letters.ack_upto(USER, here.__class__("beef", here.offset)) == 0
    assert await post.letters.ack_upto(USER, here.__class__(here.epoch, 2)) == 2
    assert post.pending() == {third}


async def test_a_known_id_is_owed_once(post: Post) -> None:
    post.emit(Ordinary(n=1), id_="same")
    post.emit(Ordinary(n=1), id_="same")
    assert len((await post.letters.fetch(USER)).records) == 1
    await post.letters.ack(USER, ["same"])
    post.emit(Ordinary(n=1), id_="same")
    assert post.pending() == set(), "what was acknowledged is not owed again"


async def test_a_full_list_gives_up_its_oldest(strict_post: Post) -> None:
    ids = strict_post.emit(*(Ordinary(n=n) for n in range(5)), Urgent())
    assert strict_post.pending() == set(ids[2:])
    assert strict_post.dead() == dict.fromkeys(ids[:2], "full")


async def test_sent_again_then_given_up(strict_post: Post) -> None:
    (id_,) = strict_post.emit(Ordinary())
    listener = strict_post.redis.pubsub()
    listener.subscribe(strict_post.keys.live(USER))
    while (message := listener.get_message(timeout=5)) and message["type"] != "subscribe":
        pass
    sent = 0
    dead_lettered = 0
    for _ in range(1000):
        answer = await strict_post.letters.redeliver(USER, [id_])
        dead_lettered += answer.dead_lettered
        if answer.next_ms == [0]:
            break
    while message := listener.get_message(timeout=0.2):
        assert message["data"].startswith(b"again ")
        sent += 1
    assert sent == 2
    assert dead_lettered == 1
    assert strict_post.dead() == {id_: "attempts"}
    assert strict_post.pending() == set()


async def test_not_sent_again_before_it_is_due(post: Post) -> None:
    (id_,) = post.emit(Ordinary())
    first = await post.letters.redeliver(USER, [id_])
    assert (await post.letters.redeliver(USER, [id_])).next_ms == first.next_ms
    assert first.next_ms[0] > 0


async def test_what_was_owed_in_another_life_is_of_this_one(post: Post) -> None:
    before = post.emit(Ordinary(n=1), Urgent(n=2))
    post.redis.delete(post.keys.channel(USER)[0])
    owed = await post.letters.fetch(USER)
    assert [record.id for record in owed.records] == [before[1], before[0]]
    assert [record.offset for record in owed.records] == [1, 2]
    assert owed.position.offset == 2
    history = await post.reader.read(USER, 0)
    assert history.position == owed.position
    assert [entry.record.id for entry in history.log] == [before[1], before[0]]
    assert [record.event for record in owed.records] == [entry.record.event for entry in history.log]


async def test_lists_live_as_long_as_what_is_in_them(strict_post: Post) -> None:
    post, week = strict_post, timedelta(days=7).total_seconds()
    channel, (pending, *_) = post.keys.channel(USER), post.keys.pending(USER)
    post.emit(Lasting())
    assert post.redis.ttl(pending) >= week
    post.redis.delete(*channel)  # evicted, say
    assert len((await post.letters.fetch(USER)).records) == 1
    assert post.redis.ttl(pending) >= week - 1, "published again in another life"
    post.emit(*(Lasting(n=n) for n in range(3)))
    (id_,) = post.dead()
    post.redis.delete(*channel, *post.keys.pending(USER)[:4])
    await post.reader.run(pending_calls.requeue(post.settings, post.keys, USER, [id_]))
    assert post.pending() == {id_}
    assert post.redis.ttl(pending) >= week, "requeued"


async def test_expired_dies_in_a_sweep(post: Post) -> None:
    (brief,) = post.emit(Brief())
    (lasting,) = post.emit(Ordinary())
    fence = await post.letters.lease("one", 30)
    assert fence is not None
    names = post.keys.pending(USER)
    # An hour later, as far as this entry is concerned.
    entry = post.redis.hget(names[0], brief)
    words, record = entry.split(b"\n", 1)
    epoch, lane, attempts, first, due, _, requeues = words.split()
    post.redis.hset(names[0], brief, b" ".join((epoch, lane, attempts, first, due, b"1", requeues)) + b"\n" + record)
    swept = await post.letters.sweep(USER, fence)
    assert (swept.dead_lettered, swept.pending, swept.dead) == (1, 1, 1)
    assert post.dead() == {brief: "expired"}
    assert post.pending() == {lasting}
    totals = await post.letters.totals()
    assert (totals.pending, totals.dead) == (1, 1)
    assert totals.oldest_dead > 0


async def test_the_sweeper_is_one_and_fenced(post: Post) -> None:
    post.emit(Ordinary())
    first = await post.letters.lease("one", 30)
    assert first is not None
    assert await post.letters.lease("two", 30) is None
    assert await post.letters.lease("one", 30) == first, "renewed"
    post.redis.delete(post.keys.sweeper[0])  # it slept too long
    second = await post.letters.lease("two", 30)
    assert second is not None
    assert second > first
    assert not (await post.letters.sweep(USER, second)).fenced
    assert (await post.letters.sweep(USER, first)).fenced


async def test_a_sweeper_of_months_is_not_fenced_off(post: Post) -> None:
    _, fence = post.keys.sweeper
    post.emit(Ordinary())
    first = await post.letters.lease("one", 30)
    assert first is not None
    assert not (await post.letters.sweep(USER, first)).fenced
    post.redis.expire(fence, 60)
    assert await post.letters.lease("one", 30) == first, "renewed"
    assert post.redis.ttl(fence) > 60, "the fence lives as long as somebody sweeps"
    post.redis.delete(fence)
    again = await post.letters.lease("one", 30)
    assert again is not None
    assert not (await post.letters.sweep(USER, again)).fenced, "a lost one begins above the former ones"


async def test_the_index_forgets_a_channel_when_nothing_is_left(post: Post) -> None:
    (id_,) = post.emit(Ordinary())
    fence = await post.letters.lease("one", 30)
    assert fence is not None
    assert post.redis.zrange(post.keys.index, 0, -1) == [USER.encode()]
    assert (await post.letters.sweep(USER, fence)).next_sweep > 0
    await post.letters.ack(USER, [id_])
    assert (await post.letters.sweep(USER, fence)).next_sweep == 0
    assert post.redis.zrange(post.keys.index, 0, -1) == []
    assert (await post.letters.totals()).pending == 0


async def test_buried_once_whoever_finds_it(post: Post) -> None:
    assert await post.letters.dead_letter(USER, "deadbeef", "undecodable", b"\xff\x00 what \n is this")
    assert not await post.letters.dead_letter(USER, "deadbeef", "undecodable", b"\xff\x00 what \n is this")
    assert post.dead() == {"deadbeef": "undecodable"}


async def test_the_dead_are_bounded(strict_post: Post) -> None:
    for n in range(6):
        await strict_post.letters.dead_letter(USER, f"d{n}", "undecodable", b"?")
    assert len(strict_post.dead()) == 4


def test_a_promise_to_a_person_is_not_broadcast(bus_settings: BusSettings) -> None:
    builder = EmissionBuilder(bus_settings)
    with pytest.raises(InvalidPayload, match="many readers") as caught:
        builder.build(broadcast_topic("7", "documents"), Ordinary())
    assert caught.value.field == "payload"


async def test_a_list_whose_entries_were_evicted_refuses_nobody(bus_settings: BusSettings, redis_url: str) -> None:
    post = Post(bus_settings.model_copy(update={"pending_limit": 2}), redis_url)
    post.emit(Ordinary(n=1), Ordinary(n=2))
    post.redis.delete(post.keys.pending(USER)[0])
    (third,) = post.emit(Ordinary(n=3))
    owed = await post.letters.fetch(USER)
    assert [record.id for record in owed.records] == [third]
    assert post.pending() == {third}, "what is not there has left the lanes"
    post.publisher.close()
    await post.reader.aclose()
