"""Undeliverable events, from a gateway process to the dead letters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import redis

from eventbus import Bus, BusSettings
from eventbus.backends.redis.dead_letter_client import DeadLetterFilter, DeadLetters
from tests.conftest import RedisServer
from tests.webui_adapter.channels.test_redelivery import Lists
from tests.webui_adapter.events import Note, Promise
from tests.webui_adapter.gateways import GatewayProcess, eventually, page, running


async def test_an_event_that_is_too_large_becomes_a_dead_letter_and_the_rest_is_delivered(
    redis_url: str, key_prefix: str, tmp_path: Path, user: str, bus: Bus
) -> None:
    lists = Lists(redis_url, key_prefix, user)
    with running(tmp_path, redis_url, key_prefix, max_message_size=2000) as narrow:
        async with page(narrow, user) as client:
            large = bus.emit(user, "op", Note(n=1, pad="x" * 3000))
            bus.emit(user, "op", Note(n=2))
            await client.until(lambda page: page.got("gw.note") == [2])
            await eventually(lambda: lists.dead, "the dead letter")
    assert lists.dead == {large.id: "too_large"}


async def test_a_rejected_pending_event_is_in_one_list_only(
    redis_url: str, key_prefix: str, tmp_path: Path, user: str, bus: Bus, publish: Callable[..., None]
) -> None:
    lists = Lists(redis_url, key_prefix, user)
    publish(user, Promise(n=1, pad="x" * 3000), Promise(n=2))
    assert lists.pending == 2
    with running(tmp_path, redis_url, key_prefix, max_message_size=2000) as narrow:
        async with page(narrow, user) as client:
            assert client.page.got("gw.promise") == [2]
            await eventually(lambda: lists.dead, "the dead letter")
            assert lists.pending == 1
            assert (await client.request(do="ack", ids=client.page.unacked))["data"]["acked"] == 1
    assert lists.pending == 0


async def test_an_unreadable_log_entry_does_not_delay_the_rest(
    gateway: GatewayProcess, redis_url: str, key_prefix: str, user: str, publish: Callable[..., None]
) -> None:
    publish(user, Note(n=1))
    client = redis.Redis.from_url(redis_url)
    client.xadd(f"{key_prefix}:{{user:{user}}}:log", {"who": "a stranger"}, id="1-1")
    publish(user, Note(n=2))
    client.hset(f"{key_prefix}:{{user:{user}}}:snapshot", "stranger", b"\xff")
    client.expire(f"{key_prefix}:{{user:{user}}}:snapshot", 60)
    async with page(gateway, user, f"user:{user}=0") as own:
        assert own.page.got("gw.note") == [1, 2]
        assert own.page.gaps == 0
        lists = Lists(redis_url, key_prefix, user)
        await eventually(lambda: list(lists.dead.values()) == ["undecodable"], "the dead letter")


async def test_with_the_event_classes_an_unknown_type_is_rejected(
    redis_url: str, key_prefix: str, tmp_path: Path, user: str, bus: Bus
) -> None:
    client = redis.Redis.from_url(redis_url)
    channel = f"{key_prefix}:{{user:{user}}}:live"
    with running(tmp_path, redis_url, key_prefix, events="tests.webui_adapter.events", check_events=True) as strict:
        async with page(strict, user) as own:
            bus.emit(user, "op", Note(n=1))
            await own.until(lambda page: page.got("gw.note") == [1])
            epoch = own.page.positions[f"user:{user}"].epoch
            topic = f"user:{user}:operation:op"
            for offset, type_, data in ((2, "gw.note", '{"n":[]}'), (3, "gw.stranger", "{}")):
                head = f"{epoch} {offset - 1}\n{offset} n nothing 0 0 {type_} {topic} -\n"
                event = f'{{"offset":{offset},"id":"f{offset}","type":"{type_}","topic":"{topic}","time":0,"data":'
                client.publish(channel, f"{head}{event}{data}}}")
            client.hset(f"{key_prefix}:{{user:{user}}}:state", "offset", 3)
            bus.emit(user, "op", Note(n=4))
            await own.until(lambda page: page.got("gw.note") == [1, 4])
            lists = Lists(redis_url, key_prefix, user)
            await eventually(lambda: len(lists.dead) == 2, "the dead letters")
            assert own.page.gaps == 0
    assert lists.dead == {"f2": "invalid", "f3": "unknown_type"}
    settings = BusSettings(redis_url=redis_url, key_prefix=key_prefix)
    found = DeadLetters(settings).find(DeadLetterFilter(type="gw.stranger"))
    assert [dead.id for dead in found] == ["f3"]


async def test_out_of_memory_dead_letters_wait_on_disk(tmp_path: Path, own_redis: RedisServer) -> None:
    lists = Lists(own_redis.url, "eb", "ann")
    settings = {"EVENTBUS_SPOOL_DIR": tmp_path / "spool", "sweep_interval": 0.2}
    with running(tmp_path, own_redis.url, **settings) as gateway:
        async with page(gateway, "ann"):
            own_redis.client.config_set("maxmemory-policy", "noeviction")
            own_redis.client.config_set("maxmemory", "1mb")
            for garbage in (b"\xffone", b"\xfftwo"):
                own_redis.client.publish("eb:{user:ann}:live", garbage)
            spilled = tmp_path / "spool"
            await eventually(lambda: [*spilled.rglob("dead-letters.[jm]*")], "the file")
            assert lists.dead == {}
            own_redis.client.config_set("maxmemory", "0")
            await eventually(lambda: len(lists.dead) == 2, "the dead letters")
        # While a gateway removes them. A gateway that ends leaves them to the next one.
        await eventually(lambda: not [*spilled.rglob("dead-letters.[jm]*")], "the files to be gone")
    assert set(lists.dead.values()) == {"undecodable"}


async def test_a_foreign_publication_does_not_interrupt_the_subscription(
    gateway: GatewayProcess, redis_url: str, key_prefix: str, user: str, bus: Bus
) -> None:
    async with page(gateway, user) as own:
        live = f"{key_prefix}:{{user:{user}}}:live"
        redis.Redis.from_url(redis_url).publish(live, b"abcd " + b"9" * 5000)
        bus.emit(user, "op", Note(n=1))
        await own.until(lambda page: page.got("gw.note") == [1])
        types = {event["type"] for event in own.page.control_events}
        assert not types & {"bus.degraded", "bus.restored", "bus.gap"}


async def test_a_record_that_is_not_utf_8_does_not_shut_a_page_out(
    gateway: GatewayProcess, redis_url: str, key_prefix: str, user: str, publish: Callable[..., None]
) -> None:
    publish(user, Note(n=1))
    client, stem = redis.Redis.from_url(redis_url), f"{key_prefix}:{{user:{user}}}"
    topic = f"user:{user}:operation:op"
    event = (
        f'{{"offset":2,"id":"f2","type":"gw.note","topic":"{topic}","time":0,"data":{{"n":"caf'.encode() + b'\xe9"}}'
    )
    client.xadd(f"{stem}:log", {"r": f"2 n log 0 0 gw.note {topic} -\n".encode() + event}, id="2-0")
    client.hset(f"{stem}:state", mapping={"offset": 2, "logged": 2})
    publish(user, Note(n=3))
    async with page(gateway, user, f"user:{user}=0") as own:
        assert own.page.got("gw.note") == [1, 3]
        lists = Lists(redis_url, key_prefix, user)
        await eventually(lambda: list(lists.dead.values()) == ["undecodable"], "the dead letter")
