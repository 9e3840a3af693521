"""Keys live as long as they must, and not longer. Lists in Redis have an upper bound."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from eventbus import BusSettings, Event
from eventbus.backends.pending import ACKED_LIMIT
from eventbus.backends.ports import Write
from eventbus.backends.redis.scripts import pending as calls
from eventbus.backends.redis.scripts.constants import SLACK
from eventbus.clock import now_ms
from eventbus.protocol.cursor import Position
from eventbus.protocol.topics import operation_topic
from tests.eventbus.backends.test_pending import USER, Lasting, Ordinary, Post

DAY = 86_400


class Kept(Event, name="lifetimes.kept"):
    n: int = 0


class State(Event, name="lifetimes.state", keep="latest"):
    n: int = 0


@pytest.fixture
async def post(bus_settings: BusSettings, redis_url: str) -> AsyncIterator[Post]:
    limits = {"user_ttl": timedelta(days=1), "dead_ttl": timedelta(days=2), "dead_limit": 3}
    made = Post(bus_settings.model_copy(update=limits), redis_url)
    yield made
    made.publisher.close()
    await made.reader.aclose()


def ttls(post: Post, *names: str) -> list[int]:
    return [post.redis.ttl(name) for name in names]


@pytest.mark.parametrize("order", [(Kept, State), (State, Kept), (Kept, Kept, State)])
def test_each_key_of_a_channel_lives_a_little_longer_than_its_ttl(post: Post, order: tuple[type[Event], ...]) -> None:
    """Also a key that comes later than the others: the log after a state, the snapshot after a log."""
    for kind in order:
        post.emit(kind())
    state, log, snapshot, ids = post.keys.channel(USER)
    for ttl in ttls(post, log, snapshot, ids):
        assert DAY - 5 <= ttl <= DAY * SLACK + 1
    assert 2 * DAY - 5 <= post.redis.ttl(state) <= 2 * DAY * SLACK + 2


def test_an_event_with_a_longer_ttl_keeps_its_channel_so_long_and_no_longer(post: Post) -> None:
    post.emit(Lasting())
    (pending, _, normal, *_), (_, log, _, ids) = post.keys.pending(USER), post.keys.channel(USER)
    for ttl in ttls(post, log, ids):
        assert 7 * DAY - 5 <= ttl <= 7 * DAY * SLACK + 1
    for ttl in ttls(post, pending, normal):
        assert 7 * DAY - 5 <= ttl <= 2 * 7 * DAY * SLACK + 2


async def test_requeued_events_keep_their_channel_for_their_lifetime(post: Post) -> None:
    """The lifetime of the event counts, in seconds: a channel must not live a thousand times as long."""
    (id_,) = post.emit(Lasting())
    await post.store.dead_letter(USER, id_, "invalid", b"")
    post.redis.delete(*post.keys.channel(USER))
    await post.reader.run(calls.requeue(post.settings, post.keys, USER, [id_]))
    for ttl in ttls(post, post.keys.channel(USER)[1], post.keys.pending(USER)[0]):
        assert 7 * DAY - 5 <= ttl <= 2 * (7 * DAY + 5) * SLACK  # the clocks of server and process differ by less


async def test_an_event_has_its_lifetime_again_with_each_requeue(post: Post) -> None:
    """A life of seven days begins anew; the second requeue counts from the first one's time."""
    (id_,) = post.emit(Lasting())
    for _ in range(2):
        await post.store.dead_letter(USER, id_, "invalid", b"")
        await post.reader.run(calls.requeue(post.settings, post.keys, USER, [id_]))
        (record,) = (await post.store.fetch(USER)).records
        assert abs(record.emitted / 1000 - now_ms()) < 90_000, "emitted now"
        assert record.expires - record.emitted // 1000 == 7 * DAY * 1000


async def test_dead_letters_and_their_times_are_bounded_alike(post: Post) -> None:
    for n in range(5):
        await post.store.dead_letter(USER, f"d{n}", "undecodable", b"?")
    _, _, _, _, dead, ids, *_ = post.keys.pending(USER)
    assert sorted(post.redis.hkeys(dead)) == post.redis.lrange(ids, 0, -1) == [b"d2", b"d3", b"d4"]
    for ttl in ttls(post, dead, ids):
        assert 2 * DAY - 5 <= ttl <= 2 * DAY * SLACK + 1


async def test_remembered_acknowledgements_are_bounded_and_expire(post: Post) -> None:
    *_, acked, _ = post.keys.pending(USER)
    post.redis.zadd(acked, {f"old{n}": n for n in range(ACKED_LIMIT)})
    ids = post.emit(Ordinary(), Ordinary())
    await post.store.ack(USER, ids)
    assert post.redis.zcard(acked) == ACKED_LIMIT
    assert {id_.decode() for id_ in post.redis.zrange(acked, -2, -1)} == set(ids), "the oldest are dropped"
    assert DAY - 5 <= post.redis.ttl(acked) <= DAY + 1


async def test_an_acknowledged_position_leaves_dead_letters_alone(post: Post) -> None:
    first, second = post.emit(Ordinary(), Ordinary())
    await post.store.dead_letter(USER, first, "invalid", b"")
    here = (await post.store.fetch(USER)).position
    assert await post.store.ack_upto(USER, Position(here.epoch, here.offset)) == 1
    assert (post.pending(), post.dead()) == (set(), {first: "invalid"})
    assert {id_.decode() for id_ in post.redis.zrange(post.keys.pending(USER)[6], 0, -1)} == {second}


@pytest.mark.parametrize("known", [None, 0, 1_500, 2_499])
def test_more_events_than_one_command_takes_are_numbered_and_deduplicated(post: Post, known: int | None) -> None:
    """``publish.lua`` adds a thousand ids to the window with one command; this batch needs three."""
    batch = [post._builder.build(operation_topic("ann", "1"), Kept(n=n), id_=f"e{n}") for n in range(2_500)]
    if known is not None:
        post.emit(Kept(n=known), id_=f"e{known}")
    (published,) = post.publisher.publish([Write(USER, batch)])
    assert not isinstance(published, Exception), published
    if known is None:
        assert list(published.offsets) == list(range(1, 2_501))
        (again,) = post.publisher.publish([Write(USER, [batch[n] for n in (0, 1_000, 2_400)])])
        assert not isinstance(again, Exception), again
        assert again.offsets == [-1, -1_001, -2_401], "the window has the offset of each id"
    else:
        assert published.offsets[known] == -1
        assert sorted(published.offsets) == [-1, *range(2, 2_501)]
        assert published.position.offset == 2_500
