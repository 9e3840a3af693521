"""What can be delivered to nobody: condemned once, buried where a person finds it, and nothing else is disturbed."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from eventbus import Bus, BusSettings
from eventbus.backends.redis.dead_letter_client import DeadLetterFilter, DeadLetters
from eventbus.backends.redis.pending_store import RedisPendingStore
from eventbus.backends.redis.reader import RedisReader
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.errors import Refused, TransportError
from eventbus.events.registry import registry
from eventbus.protocol.history import History, LogEntry
from eventbus.protocol.records import Record, parse_record, read_record
from eventbus.protocol.topics import check_id
from tests.conftest import RedisServer
from tests.webui_adapter.channels.test_redelivery import Lists
from tests.webui_adapter.events import Note, Promise
from tests.webui_adapter.gateways import GatewayProcess, eventually, page, running
from tests.webui_adapter.parts import USER, history, record
from webui_adapter.channels.validation import DEAD_LETTER_BYTES, RecordValidator, Undeliverable
from webui_adapter.maintenance.dead_letter_file import DeadLetterFile
from webui_adapter.maintenance.dead_letter_writer import DeadLetterWriter

# --- the sieve -----------------------------------------------------------------------------------------------


def validator(limit: int = 500, *, check: bool = False) -> RecordValidator:
    return RecordValidator(limit, Counter(), registry if check else None)


def note(data: str, type_: str = "gw.note", id_: str = "i1") -> Record:
    event = f'{{"offset":1,"id":"{id_}","type":"{type_}","topic":"{USER}:operation:1","time":0,"data":{data}}}'
    return parse_record(f"1 n log 0 0 {type_} {USER}:operation:1 -".encode(), event.encode())


def test_what_is_well_costs_no_copy() -> None:
    records = [record(1), record(2)]
    assert validator().deliverable(USER, records) is records
    whole = history(2, *records)
    assert validator().filter_history(USER, whole) is whole


def test_each_is_condemned_once_however_often_it_is_read() -> None:
    strict = validator()
    large = note(json.dumps({"n": 1, "pad": "x" * 600}))
    for _ in range(3):
        assert list(strict.deliverable(USER, [large, record(2)])) != [large]
    assert [(undeliverable.id, undeliverable.reason) for undeliverable in strict.rejected] == [("i1", "too_large")]
    assert strict.rejected[0].content == large.line
    assert parse_record(*strict.rejected[0].content.split(b"\n", 1)).event == large.event


@pytest.mark.parametrize("id_", ["a b/c", "\x1b[2J", "*", "ü", "x" * 200])
def test_it_gets_an_id_that_a_person_can_name(id_: str) -> None:
    small = validator(20)
    assert small.deliverable("user:ann", [note('{"n":1}', id_=id_)]) == []
    (undeliverable,) = small.rejected
    assert check_id(undeliverable.id, "id") == undeliverable.id


def test_a_part_of_a_record_is_not_taken_for_one() -> None:
    strict = validator()
    strict.deliverable(USER, [note(json.dumps({"n": 1, "pad": "x" * DEAD_LETTER_BYTES}))])
    assert strict.rejected[0].content.startswith(b"cut off: ")
    assert len(strict.rejected[0].content) <= DEAD_LETTER_BYTES + 10


def test_in_a_history_it_keeps_its_place() -> None:
    whole = history(3, record(1), record(2, pad=900), record(3))
    strained = validator().filter_history(USER, whole)
    assert [(entry.previous, entry.record.offset, bool(entry.record.event)) for entry in strained.log] == [
        (0, 1, True),
        (1, 2, False),
        (2, 3, True),
    ]


def test_what_cannot_be_read_is_kept_as_it_is() -> None:
    strict = validator()
    unreadable = read_record(b"\xff no header", 7)
    assert (unreadable.offset, unreadable.topic) == (7, "")
    strict.filter_history(USER, History(history(7).position, 7, [LogEntry(0, unreadable)], []))
    assert [(undeliverable.reason, undeliverable.content) for undeliverable in strict.rejected] == [
        ("undecodable", b"\xff no header")
    ]


def test_against_the_classes() -> None:
    strict = validator(check=True)
    good = note('{"n":1,"pad":""}')
    bad = [
        note('{"n":"one"}', id_="wrong"),
        note('{"n":1,"more":2}', id_="more"),
        note("{", id_="json"),
        note('{"n":1}', "gw.stranger", id_="stranger"),
    ]
    assert list(strict.deliverable(USER, [*bad[:2], good, *bad[2:]])) == [good]
    assert {undeliverable.id: undeliverable.reason for undeliverable in strict.rejected} == {
        "wrong": "invalid",
        "more": "invalid",
        "json": "invalid",
        "stranger": "unknown_type",
    }


# --- the disk ------------------------------------------------------------------------------------------------


def undeliverable(n: int, size: int = 10) -> Undeliverable:
    return Undeliverable(USER, f"c{n}", "undecodable", b"\xff" * size)


def test_the_spill_gives_back_what_it_took(tmp_path: Path) -> None:
    dead_letter_file = DeadLetterFile(tmp_path / "new", 10_000)
    assert dead_letter_file.claim() is None
    assert dead_letter_file.append([undeliverable(1), undeliverable(2)]) == 2
    assert dead_letter_file.append([undeliverable(3)]) == 1
    assert dead_letter_file.claim() == ([undeliverable(1), undeliverable(2), undeliverable(3)], 0)
    dead_letter_file.release()
    assert dead_letter_file.append([undeliverable(4)]) == 1
    assert dead_letter_file.claim() == ([undeliverable(1), undeliverable(2), undeliverable(3)], 0), (
        "what is on its way goes first"
    )
    dead_letter_file.commit()
    assert dead_letter_file.claim() == ([undeliverable(4)], 0)
    dead_letter_file.commit()
    assert dead_letter_file.claim() is None


def test_the_spill_is_bounded(tmp_path: Path) -> None:
    assert DeadLetterFile(tmp_path, 1000).append([undeliverable(n, 200) for n in range(10)]) == 2


def test_a_line_cut_short_costs_itself_only(tmp_path: Path) -> None:
    dead_letter_file = DeadLetterFile(tmp_path, 10_000)
    dead_letter_file.append([undeliverable(1)])
    with (tmp_path / "dead-letters.jsonl").open("ab") as file:
        file.write(b'{"channel": "user:1", "id')
    dead_letter_file.append([undeliverable(2)])
    assert dead_letter_file.claim() == ([undeliverable(1), undeliverable(2)], 1)


def test_one_at_a_time_moves_it(tmp_path: Path) -> None:
    one, other = DeadLetterFile(tmp_path, 10_000), DeadLetterFile(tmp_path, 10_000)
    one.append([undeliverable(1)])
    assert one.claim() is not None
    assert other.claim() is None
    one.release()
    assert other.claim() == ([undeliverable(1)], 0)
    other.commit()


def test_nothing_is_written_to_a_file_that_is_being_moved(tmp_path: Path) -> None:
    """The writer has opened the file, and another renames it before the writer has its lock."""
    dead_letter_file = DeadLetterFile(tmp_path, 10_000)
    dead_letter_file.append([undeliverable(1)])
    file = tmp_path / "dead-letters.jsonl"
    real = fcntl.flock

    def flock(descriptor: int, how: int) -> None:
        if file.exists() and os.path.samestat(os.fstat(descriptor), file.stat()) and not moved:
            moved.append(file.rename(tmp_path / "dead-letters.moving"))
        real(descriptor, how)

    moved: list[Path] = []
    try:
        fcntl.flock = flock
        assert dead_letter_file.append([undeliverable(2)]) == 1
    finally:
        fcntl.flock = real
    assert dead_letter_file.claim() == ([undeliverable(1)], 0)
    dead_letter_file.commit()
    assert dead_letter_file.claim() == ([undeliverable(2)], 0)


def test_a_disk_that_fails_has_no_room(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert DeadLetterFile(tmp_path / "file" / "below", 1000).append([undeliverable(1)]) == 0


# --- the undertaker ------------------------------------------------------------------------------------------


class Graves:
    """Where letters are buried, or refused."""

    def __init__(self) -> None:
        self.error: TransportError | None = None
        self.ids: list[str] = []

    async def dead_letter(self, channel: str, id: str, reason: str, content: bytes) -> bool:
        if self.error is not None:
            raise self.error
        self.ids.append(id)
        return True


async def test_what_redis_refuses_waits_on_disk(tmp_path: Path) -> None:
    graves, counters, dead_letter_file = Graves(), Counter[str](), DeadLetterFile(tmp_path, 10_000)
    dead_letter_writer = DeadLetterWriter(graves, dead_letter_file, 3, 0.01, counters)  # type: ignore[arg-type] # as much of Letters as it uses
    graves.error = Refused("OOM")
    dead_letter_writer.add([undeliverable(n) for n in range(5)])
    assert counters["drop.dead_waiting"] == 2
    running = asyncio.create_task(dead_letter_writer.run())

    def on_disk() -> int:
        count = 0
        for name in ("dead-letters.jsonl", "dead-letters.moving"):
            with suppress(FileNotFoundError):  # renamed, or gone meanwhile
                count += (tmp_path / name).read_bytes().count(b'"id"')
        return count

    await eventually(lambda: on_disk() == 3, "the file")
    dead_letter_writer.add([undeliverable(9)])
    await eventually(lambda: on_disk() == 4, "the fourth")
    graves.error = None
    await eventually(lambda: len(graves.ids) == 4, "the graves")
    assert graves.ids == ["c0", "c1", "c2", "c9"]
    await eventually(lambda: on_disk() == 0, "the files to be gone")
    assert counters["dead.undecodable"] == 4
    running.cancel()


async def test_what_redis_will_never_take_does_not_hold_up_the_others(
    tmp_path: Path, bus_settings: BusSettings, redis_server: RedisServer
) -> None:
    keys, reader = Keys(bus_settings.key_prefix), RedisReader(bus_settings)
    counters, dead_letter_file = Counter[str](), DeadLetterFile(tmp_path, 10_000)
    redis_server.client.set(keys.pending("user:broken")[4], "no hash", ex=60)
    dead_letter_writer = DeadLetterWriter(RedisPendingStore(bus_settings, reader), dead_letter_file, 10, 0.01, counters)
    running = asyncio.create_task(dead_letter_writer.run())
    dead_letter_writer.add([replace(undeliverable(1), channel="user:broken"), undeliverable(2)])
    dead = keys.pending(undeliverable(2).channel)[4]
    await eventually(lambda: redis_server.client.hexists(dead, undeliverable(2).id), "the other one's grave")
    redis_server.client.delete(keys.pending("user:broken")[4])
    await eventually(lambda: counters["dead.undecodable"] == 2, "the first one, which was kept")
    running.cancel()
    await reader.aclose()


# --- the whole of it -----------------------------------------------------------------------------------------


async def test_what_is_too_large_is_kept_and_the_rest_goes_on(
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


async def test_an_owed_one_is_in_one_list_only(
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


async def test_a_log_entry_that_cannot_be_read_does_not_hold_up_the_rest(
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


async def test_with_the_classes_known_a_stranger_is_refused(
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
    assert [letter.id for letter in found] == ["f3"]


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
        # While there is somebody who removes them: what a gateway that ends leaves there is the next one's.
        await eventually(lambda: not [*spilled.rglob("dead-letters.[jm]*")], "the files to be gone")
    assert set(lists.dead.values()) == {"undecodable"}
