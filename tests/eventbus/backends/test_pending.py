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


class Urgent(Event, name="pending.urgent", lane="high", deliver="ack"):
    n: int = 0


class Ordinary(Event, name="pending.ordinary", deliver="ack"):
    n: int = 0


class Minor(Event, name="pending.minor", lane="low", deliver="ack"):
    n: int = 0


class Brief(Event, name="pending.brief", deliver="ack", ttl=timedelta(seconds=1)):
    n: int = 0


class Lasting(Event, name="pending.lasting", deliver="ack", ttl=timedelta(days=7)):
    n: int = 0


class Post:
    """One user's channel, used like a worker, a gateway and an operator do."""

    def __init__(self, settings: BusSettings, url: str) -> None:
        self.settings = settings
        self.keys = Keys(settings.key_prefix)
        self.reader = RedisReader(settings)
        self.store = RedisPendingStore(settings, self.reader)
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
        ids = {id_.decode() for id_ in self.redis.hkeys(self.keys.pending(USER)[0])}
        in_lanes = [id_ for lane in self.lists()[:3] for id_ in lane]
        assert sorted(in_lanes) == sorted(ids), "entries and lanes say the same"
        return ids

    def lists(self) -> list[list[str]]:
        """The lists of the three lanes and of the dead letters, without tombstones."""
        _, *lanes, _, dead, _, tombstones = self.keys.pending(USER)
        gone = self.redis.hkeys(tombstones)
        found = [self.redis.lrange(name, 0, -1) for name in (*lanes, dead)]
        return [
            [id_.decode() for id_ in ids if b"%d %b" % (number, id_) not in gone] for number, ids in enumerate(found)
        ]


@pytest.fixture
async def post(bus_settings: BusSettings, redis_url: str) -> AsyncIterator[Post]:
    async for made in _post(bus_settings, redis_url):
        yield made


@pytest.fixture
async def strict_post(bus_settings: BusSettings, redis_url: str) -> AsyncIterator[Post]:
    """A store with low limits, so that tests need not wait."""
    limits = {"pending_limit": 3, "ack_timeout": 0.001, "ack_attempts": 2, "dead_limit": 4}
    async for made in _post(bus_settings.model_copy(update=limits), redis_url):
        yield made


async def _post(settings: BusSettings, url: str) -> AsyncIterator[Post]:
    made = Post(settings, url)
    yield made
    made.publisher.close()
    await made.reader.aclose()


async def test_pending_events_come_in_lane_order_by_weight(post: Post) -> None:
    post.emit(*(Minor(n=n) for n in range(3)), *(Ordinary(n=n) for n in range(6)), *(Urgent(n=n) for n in range(18)))
    batch = await post.store.fetch(USER)
    kinds = [record.type.removeprefix("pending.") for record in batch.records]
    assert kinds == [*["urgent"] * 16, *["ordinary"] * 4, "minor", *["urgent"] * 2, *["ordinary"] * 2, "minor", "minor"]
    assert batch.position.offset == 27
    assert not batch.more
    assert all(record.ack and b'"ack":true' in record.event for record in batch.records)


async def test_an_event_acknowledged_by_id_is_no_longer_pending(post: Post) -> None:
    first, second = post.emit(Ordinary(n=1), Ordinary(n=2))
    assert await post.store.ack(USER, [first, "never-heard-of"]) == 1
    assert await post.store.ack(USER, [first]) == 0, "once"
    assert [record.id for record in (await post.store.fetch(USER)).records] == [second]


async def test_a_position_of_another_epoch_acknowledges_nothing(post: Post) -> None:
    _, _, third = post.emit(Urgent(), Minor(), Ordinary())
    here = (await post.store.fetch(USER)).position
    assert await post.store.ack_upto(USER, here.__class__("beef", here.offset)) == 0
    assert await post.store.ack_upto(USER, here.__class__(here.epoch, 2)) == 2
    assert post.pending() == {third}


async def test_a_known_id_is_pending_once(post: Post) -> None:
    post.emit(Ordinary(n=1), id_="same")
    post.emit(Ordinary(n=1), id_="same")
    assert len((await post.store.fetch(USER)).records) == 1
    await post.store.ack(USER, ["same"])
    post.emit(Ordinary(n=1), id_="same")
    assert post.pending() == set(), "an acknowledged event is not pending again"


async def test_a_full_lane_dead_letters_its_oldest_event(strict_post: Post) -> None:
    ids = strict_post.emit(*(Ordinary(n=n) for n in range(5)), Urgent())
    assert strict_post.pending() == set(ids[2:])
    assert strict_post.dead() == dict.fromkeys(ids[:2], "full")


async def test_an_event_is_redelivered_then_dead_lettered(strict_post: Post) -> None:
    (id_,) = strict_post.emit(Ordinary())
    listener = strict_post.redis.pubsub()
    listener.subscribe(strict_post.keys.live(USER))
    while (message := listener.get_message(timeout=5)) and message["type"] != "subscribe":
        pass
    sent = 0
    dead_lettered = 0
    for _ in range(1000):
        answer = await strict_post.store.redeliver(USER, [id_])
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


async def test_an_event_is_not_redelivered_before_it_is_due(post: Post) -> None:
    (id_,) = post.emit(Ordinary())
    first = await post.store.redeliver(USER, [id_])
    assert (await post.store.redeliver(USER, [id_])).next_ms == first.next_ms
    assert first.next_ms[0] > 0


async def test_pending_events_of_another_epoch_are_published_again(post: Post) -> None:
    before = post.emit(Ordinary(n=1), Urgent(n=2))
    post.redis.delete(post.keys.channel(USER)[0])
    batch = await post.store.fetch(USER)
    assert [record.id for record in batch.records] == [before[1], before[0]]
    assert [record.offset for record in batch.records] == [1, 2]
    assert batch.position.offset == 2
    history = await post.reader.read(USER, 0)
    assert history.position == batch.position
    assert [entry.record.id for entry in history.log] == [before[1], before[0]]
    assert [record.event for record in batch.records] == [entry.record.event for entry in history.log]


async def test_lists_live_as_long_as_their_entries(strict_post: Post) -> None:
    post, week = strict_post, timedelta(days=7).total_seconds()
    channel, (pending, *_) = post.keys.channel(USER), post.keys.pending(USER)
    post.emit(Lasting())
    assert post.redis.ttl(pending) >= week
    post.redis.delete(*channel)  # as an eviction does
    assert len((await post.store.fetch(USER)).records) == 1
    assert post.redis.ttl(pending) >= week - 1, "published again in another epoch"
    post.emit(*(Lasting(n=n) for n in range(3)))
    (id_,) = post.dead()
    post.redis.delete(*channel, *post.keys.pending(USER)[:4])
    await post.reader.run(pending_calls.requeue(post.settings, post.keys, USER, [id_]))
    assert post.pending() == {id_}
    assert post.redis.ttl(pending) >= week, "requeued"


async def test_a_sweep_dead_letters_an_expired_event(post: Post) -> None:
    (brief,) = post.emit(Brief())
    (lasting,) = post.emit(Ordinary())
    fence = await post.store.lease("one", 30)
    assert fence is not None
    names = post.keys.pending(USER)
    # Set the entry's expiry to the past.
    entry = post.redis.hget(names[0], brief)
    fields, record = entry.split(b"\n", 1)
    epoch, lane, attempts, first, due, _, requeues = fields.split()
    post.redis.hset(names[0], brief, b" ".join((epoch, lane, attempts, first, due, b"1", requeues)) + b"\n" + record)
    swept = await post.store.sweep(USER, fence)
    assert (swept.dead_lettered, swept.pending, swept.dead) == (1, 1, 1)
    assert post.dead() == {brief: "expired"}
    assert post.pending() == {lasting}
    totals = await post.store.totals()
    assert (totals.pending, totals.dead) == (1, 1)
    assert totals.oldest_dead > 0


async def test_one_sweeper_has_the_lease_and_an_old_one_is_fenced_off(post: Post) -> None:
    post.emit(Ordinary())
    first = await post.store.lease("one", 30)
    assert first is not None
    assert await post.store.lease("two", 30) is None
    assert await post.store.lease("one", 30) == first, "renewed"
    post.redis.delete(post.keys.sweeper[0])  # its lease expired
    second = await post.store.lease("two", 30)
    assert second is not None
    assert second > first
    assert not (await post.store.sweep(USER, second)).fenced
    assert (await post.store.sweep(USER, first)).fenced


async def test_a_long_running_sweeper_is_not_fenced_off(post: Post) -> None:
    _, fence = post.keys.sweeper
    post.emit(Ordinary())
    first = await post.store.lease("one", 30)
    assert first is not None
    assert not (await post.store.sweep(USER, first)).fenced
    post.redis.expire(fence, 60)
    assert await post.store.lease("one", 30) == first, "renewed"
    assert post.redis.ttl(fence) > 60, "each renewal keeps the token alive"
    post.redis.delete(fence)
    again = await post.store.lease("one", 30)
    assert again is not None
    assert not (await post.store.sweep(USER, again)).fenced, (
        "a token that replaces a lost one is above all earlier ones"
    )


async def test_the_index_drops_a_channel_without_entries(post: Post) -> None:
    (id_,) = post.emit(Ordinary())
    fence = await post.store.lease("one", 30)
    assert fence is not None
    assert post.redis.zrange(post.keys.index, 0, -1) == [USER.encode()]
    assert (await post.store.sweep(USER, fence)).next_sweep > 0
    await post.store.ack(USER, [id_])
    assert (await post.store.sweep(USER, fence)).next_sweep == 0
    assert post.redis.zrange(post.keys.index, 0, -1) == []
    assert (await post.store.totals()).pending == 0


async def test_an_event_is_dead_lettered_once(post: Post) -> None:
    assert await post.store.dead_letter(USER, "deadbeef", "undecodable", b"\xff\x00 what \n is this")
    assert not await post.store.dead_letter(USER, "deadbeef", "undecodable", b"\xff\x00 what \n is this")
    assert post.dead() == {"deadbeef": "undecodable"}


async def test_dead_letters_are_bounded(strict_post: Post) -> None:
    for n in range(6):
        await strict_post.store.dead_letter(USER, f"d{n}", "undecodable", b"?")
    assert len(strict_post.dead()) == 4


def test_an_event_that_needs_an_ack_is_not_broadcast(bus_settings: BusSettings) -> None:
    builder = EmissionBuilder(bus_settings)
    with pytest.raises(InvalidPayload, match="many readers") as caught:
        builder.build(broadcast_topic("7", "documents"), Ordinary())
    assert caught.value.field == "payload"


async def test_a_lane_whose_entries_were_evicted_takes_new_events(bus_settings: BusSettings, redis_url: str) -> None:
    post = Post(bus_settings.model_copy(update={"pending_limit": 2}), redis_url)
    post.emit(Ordinary(n=1), Ordinary(n=2))
    post.redis.delete(post.keys.pending(USER)[0])
    (third,) = post.emit(Ordinary(n=3))
    batch = await post.store.fetch(USER)
    assert [record.id for record in batch.records] == [third]
    assert post.pending() == {third}, "the lane drops ids without an entry"
    post.publisher.close()
    await post.reader.aclose()
