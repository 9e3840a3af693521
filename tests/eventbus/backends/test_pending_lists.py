"""The lists behind pending events and dead letters: tombstones, lost keys, and the sorted sets of format 1."""

from __future__ import annotations

import json
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from eventbus import BusSettings
from eventbus.backends.pending import TOMBSTONES_SPARED
from eventbus.backends.ports import Write
from eventbus.backends.redis import pending_store
from eventbus.backends.redis.dead_letter_client import DeadLetterFilter, DeadLetters
from eventbus.backends.redis.scripts import pending as calls
from eventbus.backends.redis.scripts.channel import publish
from eventbus.clock import now_ms
from eventbus.protocol.cursor import Position
from eventbus.protocol.topics import operation_topic
from tests.conftest import RedisServer, wait_until
from tests.eventbus.backends.test_pending import USER, Minor, Ordinary, Post, Urgent

FORMAT_1 = Path(__file__).with_name("format_1.jsonl")
RECORDED = 1_796_026_925_900


@pytest.fixture
async def post(bus_settings: BusSettings, redis_url: str) -> AsyncIterator[Post]:
    made = Post(bus_settings, redis_url)
    yield made
    made.publisher.close()
    await made.reader.aclose()


def raw(post: Post, lane: int = 1) -> list[str]:
    """A list with its tombstones."""
    return [id_.decode() for id_ in post.redis.lrange(post.keys.pending(USER)[1 + lane], 0, -1)]


def tombstones(post: Post) -> dict[bytes, bytes]:
    return post.redis.hgetall(post.keys.pending(USER)[7])


def forget(post: Post, id_: str) -> None:
    """As if so many events had come since that the window of ids has forgotten this one."""
    post.redis.zrem(post.keys.channel(USER)[3], id_)


async def fetched(post: Post) -> list[str]:
    return [record.id for record in (await post.store.fetch(USER)).records]


@contextmanager
def commands_of(server: RedisServer) -> Iterator[dict[str, int]]:
    """Count the commands that the server runs, also those in scripts."""
    client = server.client
    client.config_resetstat()
    found: dict[str, int] = {}
    yield found
    stats = client.info("commandstats")
    found.update({name.removeprefix("cmdstat_"): row["calls"] for name, row in stats.items()})


# --- tombstones ------------------------------------------------------------------------------------------------------


async def test_an_id_acknowledged_in_the_middle_is_a_tombstone_until_it_reaches_the_left_end(post: Post) -> None:
    first, second, third = post.emit(*(Ordinary(n=n) for n in range(3)))
    await post.store.ack(USER, [second])
    assert raw(post) == [first, second, third]
    assert tombstones(post) == {f"1 {second}".encode(): b"", b":1": b"1"}
    assert await fetched(post) == [first, third]
    await post.store.ack(USER, [first])
    assert raw(post) == [third], "the tombstone left with the id before it"
    assert tombstones(post) == {}


async def test_tombstones_are_bounded(post: Post) -> None:
    """The oldest event is never acknowledged, so no tombstone can leave at the left end."""
    (oldest,) = post.emit(Ordinary())
    for _ in range(3):
        ids = post.emit(*(Ordinary(n=n) for n in range(TOMBSTONES_SPARED)))
        await post.store.ack(USER, ids)
    (newest,) = post.emit(Ordinary())
    assert await fetched(post) == [oldest, newest]
    assert len(raw(post)) <= TOMBSTONES_SPARED + 2
    assert post.redis.ttl(post.keys.pending(USER)[2]) > 0


@pytest.mark.parametrize("number", [20, 200])
async def test_no_acknowledgement_searches_a_list(own_redis: RedisServer, number: int) -> None:
    """Commands grow with the acknowledged events only, in whichever order they come. By id, none reads a range; by
    position, ranges begin at the left end and are as long as what is acknowledged.
    """
    settings = BusSettings(redis_url=own_redis.url)
    post = Post(settings, own_redis.url)
    ids = post.emit(*(Ordinary(n=n) for n in range(number)), *(Urgent(n=n) for n in range(number)))
    random.Random(7).shuffle(ids)
    end = post.publisher.position(USER)
    with commands_of(own_redis) as ran:
        for id_ in ids[:number]:
            assert await post.store.ack(USER, [id_]) == 1
    searches = {"lrem", "lpos", "linsert", "zrange", "hgetall", "hkeys"}
    assert not (searches | {"lrange"}) & ran.keys()
    assert sum(ran.get(name, 0) for name in ("lindex", "lpop", "hget", "hdel")) <= 8 * number + 10
    with commands_of(own_redis) as ran:
        assert await post.store.ack_upto(USER, end) == number
        assert await post.store.ack_upto(USER, Position("beef", 5)) == 0
    assert not searches & ran.keys()
    assert ran["lrange"] <= 2 * (3 + number / 64) + 6, "ranges of 4, 16 and 64 ids"
    assert sum(ran.get(name, 0) for name in ("lindex", "lpop", "hget", "hdel", "hmget")) <= 8 * number + 20
    assert post.pending() == set()
    post.publisher.close()
    await post.reader.aclose()


@pytest.mark.parametrize("again", ["requeued", "published"])
@pytest.mark.parametrize("kind", [Ordinary, Urgent])
async def test_an_id_that_comes_again_is_once_in_the_lists(post: Post, again: str, kind: type[Ordinary]) -> None:
    """Otherwise its tombstone would count again, and the event would overtake all events between."""
    first, second, third = post.emit(*(Ordinary(n=n) for n in range(3)))
    if again == "requeued":
        await post.store.dead_letter(USER, second, "invalid", b"")
        assert raw(post) == [first, second, third]
        post.publisher.run(calls.requeue(post.settings, post.keys, USER, [second]))
        assert raw(post) == [first, third, second]
    else:
        await post.store.ack(USER, [second])
        forget(post, second)
        post.emit(kind(n=4), id_=second)
        assert sorted(raw(post, 0) + raw(post)) == sorted([first, second, third])
    assert tombstones(post) == {}
    assert post.pending() == {first, second, third}


async def test_a_pending_id_that_the_window_forgot_is_pending_once(post: Post) -> None:
    post.emit(Ordinary(n=1), id_="same")
    (other,) = post.emit(Ordinary(n=2))
    forget(post, "same")
    post.emit(Minor(n=3), id_="same")
    assert (raw(post, 1), raw(post, 2)) == ([other], ["same"])
    assert await post.store.ack(USER, ["same", "same"]) == 1
    assert post.pending() == {other}


async def test_an_id_that_is_pending_and_dead_is_acknowledged_and_stays_dead(post: Post) -> None:
    (first,) = post.emit(Ordinary(n=1))
    await post.store.dead_letter(USER, first, "invalid", b"")
    (other,) = post.emit(Ordinary(n=2))
    await post.store.dead_letter(USER, other, "invalid", b"")
    forget(post, first)
    post.emit(Ordinary(n=1), id_=first)
    assert await post.store.ack(USER, [first]) == 1
    assert (post.pending(), set(post.dead())) == (set(), {first, other})
    forget(post, first)
    post.emit(Ordinary(n=1), id_=first)
    for attempt in range(post.settings.ack_attempts + 1):
        entry = post.redis.hget(post.keys.pending(USER)[0], first)
        fields, record = entry.split(b"\n", 1)
        epoch, lane, _, born, _, *rest = fields.split()
        due = b" ".join((epoch, lane, b"%d" % attempt, born, b"1", *rest))
        post.redis.hset(post.keys.pending(USER)[0], first, due + b"\n" + record)
        await post.store.redeliver(USER, [first])
    assert post.dead() == {first: "attempts", other: "invalid"}
    assert post.lists()[3] == [other, first], "it died again, so it is the youngest"


async def test_purged_from_the_middle(post: Post) -> None:
    for n in range(4):
        await post.store.dead_letter(USER, f"d{n}", "undecodable", b"?")
    dead = DeadLetters(post.settings)
    assert dead.purge(DeadLetterFilter(ids=frozenset({"d1", "d2"}), channel="ann"), by="eve") == 2
    assert [one.id for one in dead.find(DeadLetterFilter(channel="ann"))] == ["d0", "d3"]
    await post.store.dead_letter(USER, "d1", "undecodable", b"?")
    assert post.lists()[3] == ["d0", "d3", "d1"]
    dead.close()


# --- parts of long lists, epochs -------------------------------------------------------------------------------------


async def test_a_long_list_is_read_in_parts(own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part costs what it contains, however many events are behind it."""
    monkeypatch.setattr(pending_store, "FETCH_BYTES", 2_000)
    post = Post(BusSettings(redis_url=own_redis.url), own_redis.url)
    ids = post.emit(*(Ordinary(n=n) for n in range(450)))
    found: list[str] = []
    with commands_of(own_redis) as ran:
        while len(found) < len(ids):
            batch = await post.store.fetch(USER)
            assert batch.more is (len(found) + len(batch.records) < len(ids))
            found += [record.id for record in batch.records]
            await post.store.ack(USER, [record.id for record in batch.records])
    assert found == ids
    parts = ran["evalsha"] // 2
    assert ran["lrange"] <= 3 * parts + len(ids) / 64
    assert ran["hget"] <= 2 * len(ids) + parts
    post.publisher.close()
    await post.reader.aclose()


async def test_events_of_an_earlier_epoch_move_to_the_right_in_parts(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = post.emit(*(Ordinary(n=n) for n in range(4)))
    post.redis.delete(*post.keys.channel(USER))
    (new,) = post.emit(Ordinary(n=4))
    monkeypatch.setattr(pending_store, "FETCH_BYTES", 1)
    batch = await post.store.fetch(USER)
    assert ([record.id for record in batch.records], batch.more) == (old[:1], True)
    assert raw(post) == [*old[1:], new, old[0]]
    here = batch.position
    assert await post.store.ack_upto(USER, here) == 2, "those of this epoch, behind those of the earlier one"
    assert post.pending() == set(old[1:])
    monkeypatch.setattr(pending_store, "FETCH_BYTES", 1_000_000)
    assert await fetched(post) == old[1:]
    assert raw(post) == old[1:]
    assert await post.store.ack_upto(USER, Position(here.epoch, 4)) == 2, "offsets ascend again"
    assert post.pending() == {old[3]}


# --- lost keys -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [1, 2, 5, 7])
async def test_a_lost_list_is_made_again_from_the_entries(post: Post, lost: int) -> None:
    high = post.emit(*(Urgent(n=n) for n in range(3)))
    normal = post.emit(*(Ordinary(n=n) for n in range(12)))
    await post.store.dead_letter(USER, normal[4], "invalid", b"")
    await post.store.dead_letter(USER, normal[2], "invalid", b"")
    await post.store.ack(USER, [normal[8]])
    post.redis.delete(post.keys.pending(USER)[lost])
    left = [id_ for n, id_ in enumerate(normal) if n not in {2, 4, 8}]
    assert await fetched(post) == [*high, *left]
    dead = DeadLetters(post.settings)
    assert [one.id for one in dead.find(DeadLetterFilter(channel="ann"))] in (
        [normal[4], normal[2]],
        sorted([normal[4], normal[2]]),  # both died in one millisecond
    )
    dead.close()
    assert post.lists()[:2] == [high, left]
    assert all(post.redis.ttl(name) != -1 for name in post.keys.pending(USER))


async def test_an_event_whose_list_was_lost_can_still_be_acknowledged_and_swept(post: Post) -> None:
    ids = post.emit(*(Ordinary(n=n) for n in range(5)))
    post.redis.delete(post.keys.pending(USER)[2])
    assert await post.store.ack(USER, [ids[1]]) == 1
    assert await post.store.ack_upto(USER, post.publisher.position(USER)) == 4
    assert post.pending() == set()


async def test_an_entry_of_another_program_becomes_a_dead_letter(post: Post) -> None:
    (id_,) = post.emit(Ordinary())
    post.redis.hset(post.keys.pending(USER)[0], "odd", b"rubbish")
    assert await fetched(post) == [id_]
    assert post.dead() == {"odd": "undecodable"}
    assert post.pending() == {id_}


async def test_a_sweep_releases_from_the_left(post: Post) -> None:
    for n in range(5):
        await post.store.dead_letter(USER, f"d{n}", "undecodable", b"?")
    key = post.keys.pending(USER)[4]
    long_ago = now_ms() - int(post.settings.dead_ttl.total_seconds() * 1000) - 1
    for id_ in ("d0", "d2"):
        post.redis.hset(key, id_, f"undecodable 0 {long_ago} {long_ago} 0\n?")
    post.redis.hset(key, "d1", "rubbish")
    fence = await post.store.lease("one", 30)
    assert fence is not None
    swept = await post.store.sweep(USER, fence)
    assert (swept.released, swept.dead) == (3, 2)
    assert post.lists()[3] == ["d3", "d4"]
    assert swept.oldest_dead > long_ago


async def test_a_dead_letter_is_kept_for_all_of_its_time(post: Post) -> None:
    (id_,) = post.emit(Ordinary())
    await post.store.dead_letter(USER, id_, "invalid", b"")
    almost = now_ms() - int(post.settings.dead_ttl.total_seconds() * 1000) + 60_000
    post.redis.hset(post.keys.pending(USER)[4], id_, f"invalid 0 {almost} {almost} 0\n?")
    fence = await post.store.lease("one", 30)
    assert fence is not None
    swept = await post.store.sweep(USER, fence)
    assert (swept.released, swept.dead, swept.oldest_dead) == (0, 1, almost)
    assert abs(swept.next_sweep - now_ms() - 60_000) < 30_000


# --- the sorted sets of format 1 -------------------------------------------------------------------------------------


def write_format_1(post: Post) -> None:
    """Write what a worker and a gateway of format 1 left behind, as if they had done so just now."""
    shift = now_ms() - RECORDED
    for line in FORMAT_1.read_text().splitlines():
        shifted = re.sub(r"(?<!\d)1796\d{9}(?!\d)", lambda found: str(int(found[0]) + shift), line)
        verb, key, *rest = json.loads(shifted)
        name = key.replace("eb:", f"{post.settings.key_prefix}:", 1)
        post.redis.execute_command(verb, name, *rest)
        post.redis.expire(name, 600)


def old_names(post: Post) -> list[str]:
    stem = f"{post.settings.key_prefix}:{{{USER}}}:"
    return [f"{stem}pending:high", f"{stem}pending:normal", f"{stem}pending:low", f"{stem}dead:at"]


EXPECTED = [["high-1", "high-2"], ["normal-2", "normal-3", "normal-4"], ["low-1"]]
DEAD = ["full-1", "full-2", "normal-1", "garbage"]


async def _fetch(post: Post) -> None:
    assert await fetched(post) == [id_ for lane in EXPECTED for id_ in lane]


async def _sweep(post: Post) -> None:
    fence = await post.store.lease("one", 30)
    assert fence is not None
    swept = await post.store.sweep(USER, fence)
    assert (swept.pending, swept.dead, swept.dead_lettered, swept.released) == (6, 4, 0, 0)


async def _ack_upto(post: Post) -> None:
    assert await post.store.ack_upto(USER, Position("beef", 5)) == 0


async def _find(post: Post) -> None:
    dead = DeadLetters(post.settings)
    assert [one.id for one in dead.find(DeadLetterFilter(channel="ann"))] == DEAD
    dead.close()


async def _purge(post: Post) -> None:
    assert post.publisher.run(calls.purge(post.settings, post.keys, USER, ["unknown"])) == 0


async def _dead_letter(post: Post) -> None:
    assert not await post.store.dead_letter(USER, "garbage", "undecodable", b"")
    assert await post.store.dead_letter(USER, "more", "undecodable", b"")
    post.publisher.run(calls.purge(post.settings, post.keys, USER, ["more"]))


@pytest.mark.parametrize("verb", [_fetch, _sweep, _ack_upto, _find, _purge, _dead_letter])
async def test_the_sorted_sets_are_read_once_and_become_lists(
    post: Post, verb: Callable[[Post], Awaitable[None]]
) -> None:
    write_format_1(post)
    await verb(post)
    await _fetch(post)
    assert post.lists() == [*EXPECTED, DEAD]
    assert post.redis.exists(*old_names(post)) == 0
    assert all(post.redis.ttl(name) != -1 for name in post.keys.pending(USER))
    assert await post.store.ack_upto(USER, post.publisher.position(USER)) == 6
    done = post.publisher.run(calls.requeue(post.settings, post.keys, USER, DEAD))
    assert done == [11, 12, 13, -1]
    assert await fetched(post) == DEAD[:3]


async def test_events_published_before_the_conversion_come_after_the_old_ones(post: Post) -> None:
    write_format_1(post)
    (new,) = post.emit(Ordinary())
    assert await post.store.ack(USER, ["normal-2"]) == 1
    assert post.publisher.run(calls.requeue(post.settings, post.keys, USER, ["full-1"])) == [12]
    assert await fetched(post) == ["high-1", "high-2", "normal-3", "normal-4", new, "full-1", "low-1"]
    assert post.lists() == [["high-1", "high-2"], ["normal-3", "normal-4", new, "full-1"], ["low-1"], DEAD[1:]]


async def test_a_worker_and_a_gateway_of_format_1_may_go_on_writing(post: Post) -> None:
    """An upgrade takes time. The old names stay free for sorted sets, so that no old script meets a list."""
    write_format_1(post)
    await _fetch(post)
    state, log, _, ids = post.keys.channel(USER)
    entry = post.redis.hget(post.keys.pending(USER)[0], "normal-4").replace(b"\n10 n", b"\n11 n")
    for command in (
        ("HSET", post.keys.pending(USER)[0], "from-old", entry),
        ("ZADD", old_names(post)[1], 11, "from-old"),
        ("ZADD", ids, 11, "from-old"),
        ("XADD", log, "11-0", "r", entry.partition(b"\n")[2]),
        ("HSET", state, "offset", 11, "logged", 11),
        ("EXPIRE", old_names(post)[1], 600),
        ("HDEL", post.keys.pending(USER)[0], "normal-3"),  # acknowledged at the gateway of format 1
        ("ZREM", old_names(post)[1], "normal-3"),
    ):
        post.redis.execute_command(*command)
    await fetched(post)
    (new,) = post.emit(Ordinary())
    assert post.lists()[1] == ["normal-2", "normal-4", "from-old", new]
    assert post.redis.exists(*old_names(post)) == 0


async def test_a_writer_of_format_1_keeps_as_many_as_the_limit_allows(post: Post) -> None:
    tight = post.settings.model_copy(update={"pending_limit": 3})
    for n in range(5):
        emission = post._builder.build(operation_topic("ann", "1"), Ordinary(n=n), id_=f"e{n}")
        post.publisher.run(publish(tight, post.keys, Write(USER, [emission]), format_=1))
    assert post.redis.zrange(old_names(post)[1], 0, -1) == [b"e2", b"e3", b"e4"]
    assert post.dead() == {"e0": "full", "e1": "full"}


@pytest.mark.parametrize(("format_", "first_line"), [(2, b"e1 0"), (3, b"e1 0 3")])
def test_a_publication_names_its_format_from_the_third_on(post: Post, format_: int, first_line: bytes) -> None:
    """A gateway of this version must notice that it cannot read it."""
    listener = post.redis.pubsub(ignore_subscribe_messages=True)
    listener.subscribe(post.keys.live(USER))
    emission = post._builder.build(operation_topic("ann", "1"), Ordinary())
    post.publisher.run(publish(post.settings, post.keys, Write(USER, [emission]), "e1", format_))
    wait_until(lambda: (heard := listener.get_message()) and heard["data"].split(b"\n")[0] == first_line, "the event")
    listener.close()


async def test_a_full_lane_counts_what_is_left_in_sorted_sets(post: Post) -> None:
    write_format_1(post)
    tight = post.settings.model_copy(update={"pending_limit": 3})
    small = Post(tight, tight.redis_url)
    new = small.emit(*(Ordinary(n=n) for n in range(4)))
    assert small.lists()[1] == new[1:]
    assert {id_ for id_, reason in small.dead().items() if reason == "full"} >= {"normal-2", "normal-3", "normal-4"}
    small.publisher.close()
    await small.reader.aclose()
