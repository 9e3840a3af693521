"""While Redis is down, durable events wait on disk, survive their process, and go out first and in order."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from redis import Redis

from eventbus import Bus, BusSettings, Event, RateLimited, Unavailable
from eventbus.backends.redis.publisher import RedisPublisher
from eventbus.backends.redis.reader import RedisReader
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.events.encoder import EmissionBuilder
from eventbus.outbox.spool import Spool, spool_folder
from tests.conftest import RedisServer, wait_until


class Step(Event, name="spool.step"):
    n: int


class Failure(Event, name="spool.failure", lane="high"):
    n: int


class State(Event, name="spool.state", keep="latest"):
    n: int


class Live(Event, name="spool.live", keep="nothing"):
    n: int


ACK_TTL = timedelta(seconds=1)


class Acknowledged(Event, name="spool.acknowledged", deliver="ack", ttl=ACK_TTL):
    n: int


@pytest.fixture
def settings(own_redis: RedisServer, tmp_path: Path) -> BusSettings:
    return BusSettings(
        redis_url=own_redis.url, spool_dir=tmp_path / "spool", outbox_events=100, flush_budget=0.3, retry_max=0.1
    )


@pytest.fixture
def bus(settings: BusSettings) -> Iterator[Bus]:
    made = Bus(settings)
    yield made
    made.close()


def files(settings: BusSettings) -> list[Path]:
    folder = spool_folder(settings)
    return sorted(folder.iterdir()) if folder.is_dir() else []


async def logged(settings: BusSettings, user: str = "ann") -> list[int]:
    reader = RedisReader(settings)
    try:
        history = await reader.read(f"user:{user}", 0)
    finally:
        await reader.aclose()
    return [int(entry.record.event.rpartition(b'"n":')[2].rstrip(b"}")) for entry in history.log]


def away(bus: Bus, redis: RedisServer) -> None:
    redis.kill()
    bus.emit("ann", "1", Live(n=0))
    wait_until(lambda: bus.outbox.redis_down, "the breaker to open")


async def test_more_than_memory_holds_comes_in_order(bus: Bus, settings: BusSettings, own_redis: RedisServer) -> None:
    away(bus, own_redis)
    receipts = [bus.emit("ann", "1", Step(n=n)) for n in range(1000)]
    assert {receipt.status for receipt in receipts} == {"spooled", "waiting"}
    assert files(settings)
    own_redis.start()
    wait_until(lambda: bus.flush(1), "everything to go out")
    assert await logged(settings) == list(range(1000))
    assert files(settings) == [], "nothing is left behind"


async def test_what_a_process_leaves_the_next_one_sends_first(settings: BusSettings, own_redis: RedisServer) -> None:
    first = Bus(settings)
    away(first, own_redis)
    for n in range(250):
        first.emit("ann", "1", Step(n=n))
    assert not first.close()
    (left,) = files(settings)
    assert stat.S_IMODE(left.stat().st_mode) == 0o600
    assert stat.S_IMODE(left.parent.stat().st_mode) == 0o700
    own_redis.start()
    second = Bus(settings)
    second.emit("ann", "1", Step(n=250))
    wait_until(lambda: second.flush(1) and not files(settings), "both processes' events")
    assert await logged(settings) == list(range(251))
    second.close()


async def test_an_idle_process_sends_it_too(settings: BusSettings, own_redis: RedisServer) -> None:
    first = Bus(settings)
    away(first, own_redis)
    first.emit("ann", "1", Step(n=1))
    first.close()
    own_redis.start()
    second = Bus(settings)
    second.outbox.start()
    wait_until(lambda: not files(settings), "the orphan to be drained")
    assert await logged(settings) == [1]
    second.close()


_CRASHING = """
import sys
from pathlib import Path
from eventbus import Bus, BusSettings, Unavailable
from eventbus.backends.redis.publisher import RedisPublisher
from tests.eventbus.outbox.test_spool import Step
def cut(self, requests):
    raise Unavailable("this process reaches Redis no more")
RedisPublisher.publish = cut
settings = BusSettings(redis_url=sys.argv[1], spool_dir=Path(sys.argv[2]), outbox_events=100)
bus = Bus(settings)
for n in range(500):
    bus.emit("ann", "1", Step(n=n))
print(bus.outbox.spooled["spooled"], flush=True)
sys.stdin.read()
"""


def crashing(settings: BusSettings) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _CRASHING, settings.redis_url, str(settings.spool_dir)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


async def test_a_killed_process_leaves_what_was_on_disk(settings: BusSettings, own_redis: RedisServer) -> None:
    own_redis.kill()
    process = crashing(settings)
    assert process.stdout is not None
    spooled = int(process.stdout.readline())
    assert spooled >= 100
    own_redis.start()
    bus = Bus(settings)
    bus.outbox.start()
    wait_until(lambda: bus.outbox._buffer._scanned > 0, "the look for orphans")
    assert await logged(settings) == [], "its owner lives"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert process.stdin is not None
    process.stdin.close()
    bus.outbox._buffer._scanned = -1e9
    bus.emit("bob", "1", Step(n=-1))
    wait_until(lambda: not files(settings), "the orphan to be drained")
    assert await logged(settings) == list(range(spooled))
    bus.close()


async def test_a_damaged_tail_costs_only_itself(settings: BusSettings, own_redis: RedisServer) -> None:
    first = Bus(settings)
    away(first, own_redis)
    for n in range(20):
        first.emit("ann", "1", Step(n=n))
    first.close()
    (left,) = files(settings)
    os.truncate(left, left.stat().st_size - 7)
    own_redis.start()
    second = Bus(settings)
    second.outbox.start()
    wait_until(lambda: not files(settings), "the orphan to be drained")
    assert await logged(settings) == list(range(19))
    assert second.outbox.spooled["damaged"] == 1
    second.close()


def test_an_unacknowledged_event_that_expires_on_disk_is_a_dead_letter(
    settings: BusSettings, own_redis: RedisServer
) -> None:
    first = Bus(settings)
    away(first, own_redis)
    receipt = first.emit("ann", "1", Acknowledged(n=1))
    first.close()
    assert receipt.status == "spooled"
    over = time.time() + ACK_TTL.total_seconds()
    wait_until(lambda: time.time() > over, "its time to be over")
    own_redis.start()
    second = Bus(settings)
    second.outbox.start()
    wait_until(lambda: not files(settings), "the orphan to be drained")
    second.close()
    assert not second.outbox.dropped.total()
    client = Redis.from_url(own_redis.url)
    assert client.hexists(Keys(settings.key_prefix).pending("user:ann")[0], receipt.id), "the sweeper dead-letters it"


def test_one_drainer_at_a_time(settings: BusSettings, own_redis: RedisServer) -> None:
    first = Bus(settings)
    away(first, own_redis)
    first.emit("ann", "1", Step(n=1))
    first.close()
    one, other = Spool(settings), Spool(settings)
    one.look_for_orphans()
    other.look_for_orphans()
    assert (one.waiting, other.waiting) == (True, False)
    one.close()
    other.look_for_orphans()
    assert other.waiting
    other.close()


def test_no_other_process_adopts_a_file_before_it_is_locked(settings: BusSettings) -> None:
    one, other = Spool(settings), Spool(settings)
    looking = [True]

    def look(event: str, _: object) -> None:
        if event == "fcntl.flock" and looking:
            looking.clear()
            other.look_for_orphans()

    sys.addaudithook(look)  # stays, and does nothing more
    emission = EmissionBuilder(settings).build("user:ann:operation:1", Step(n=1))
    assert len(one.append([emission])) == 1
    assert not looking
    assert len(files(settings)) == 1
    assert not other.waiting
    one.close()
    other.close()


def test_a_damaged_length_is_not_believed(settings: BusSettings) -> None:
    spool = Spool(settings)
    emission = EmissionBuilder(settings).build("user:ann:operation:1", Step(n=1))
    assert len(spool.append([emission])) == 1
    spool.close()
    (left,) = files(settings)
    with left.open("ab") as file:
        file.write(b"\xff" * 12)
    heir = Spool(settings)
    before = resource.getrlimit(resource.RLIMIT_AS)
    # As in a container whose memory is bounded: four gigabytes are not there.
    resource.setrlimit(resource.RLIMIT_AS, (3 << 30, before[1]))
    try:
        heir.look_for_orphans()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert heir.counts["damaged"] == 1
    assert [entry.topic for entry in heir.take(10)] == [emission.topic]
    heir.close()


def test_the_disk_is_bounded_and_the_rest_is_counted(settings: BusSettings, own_redis: RedisServer) -> None:
    bus = Bus(settings.model_copy(update={"spool_bytes": 20_000}))
    away(bus, own_redis)
    receipts = [bus.emit("ann", "1", Step(n=n)) for n in range(500)]
    bus.close()
    assert sum(file.stat().st_size for file in files(settings)) <= 20_000
    lost = sum(receipt.status == "dropped" for receipt in receipts)
    assert lost == bus.outbox.dropped["spool"] == bus.outbox.spooled["spool_full"] > 0


def test_a_folder_that_cannot_be_written_never_raises(settings: BusSettings, own_redis: RedisServer) -> None:
    assert settings.spool_dir is not None
    settings.spool_dir.write_text("not a folder")
    bus = Bus(settings)
    away(bus, own_redis)
    for n in range(150):
        bus.emit("ann", "1", Step(n=n))
    bus.close()
    assert bus.outbox.spooled["spool_failed"] > 0


async def test_a_failure_does_not_wait_behind_the_spool_of_others(
    settings: BusSettings, own_redis: RedisServer
) -> None:
    slow = settings.model_copy(update={"batch_events": 10})
    bus = Bus(slow)
    away(bus, own_redis)
    for n in range(1000):
        bus.emit("ann", "flood", Step(n=n))
    bus.emit("ann", "other", Failure(n=-1))
    bus.emit("ann", "flood", Failure(n=-2))
    own_redis.start()
    wait_until(lambda: bus.flush(1), "everything to go out")
    order = await logged(settings)
    assert order.index(-1) < 200, "it went out next to the first pieces"
    assert order.index(-2) == len(order) - 1, "its own topic goes first"
    assert [n for n in order if n >= 0] == list(range(1000))
    bus.close()


async def test_what_is_urgent_is_not_put_behind_the_flood_that_fills_memory(
    settings: BusSettings, own_redis: RedisServer
) -> None:
    bus = Bus(settings.model_copy(update={"batch_events": 20}))
    own_redis.kill()
    bus.emit("ann", "mixed", Step(n=0))
    wait_until(lambda: bus.outbox.failures, "the first one to be on its way")
    bus.emit("ann", "mixed", Failure(n=1))
    receipts = [bus.emit("ann", "flood", Step(n=n)) for n in range(2, 90)]
    bus.emit("ann", "broken", Failure(n=1000))
    receipts += [bus.emit("ann", "flood", Step(n=n)) for n in range(90, 350)]
    assert receipts[0].status == "spooled"
    own_redis.start()
    wait_until(lambda: bus.flush(1), "all to be there")
    bus.close()
    there = await logged(settings)
    assert there.index(1000) < 50, "next to the first pieces of the disk"
    assert [n for n in there if n != 1000] == list(range(350)), "a topic keeps its order"


def test_no_call_waits_for_a_redis_that_is_known_to_be_down(bus: Bus, own_redis: RedisServer) -> None:
    away(bus, own_redis)
    bus.emit("ann", "1", Step(n=1))
    tried = bus.outbox.failures
    for _ in range(50):
        assert not bus.flush(60)
    assert bus.outbox.failures - tried < 50, "a flush is no try"


def test_an_event_loop_that_ended_before_its_answer_came_does_no_harm(bus: Bus, own_redis: RedisServer) -> None:
    assert bus.emit("ann", "1", Step(n=0), strict=True).status == "published"
    assert own_redis.process is not None
    own_redis.process.send_signal(signal.SIGSTOP)
    try:
        receipt = asyncio.run(bus.aemit("ann", "1", Step(n=1)))
        assert receipt.status == "waiting"
    finally:
        own_redis.process.send_signal(signal.SIGCONT)
    wait_until(lambda: receipt.status == "published", "the answer")
    assert bus.emit("ann", "1", Step(n=2), strict=True).status == "published", "the thread goes on"


async def test_async_code_does_not_wait_either(bus: Bus, own_redis: RedisServer) -> None:
    away(bus, own_redis)
    receipt = await bus.aemit("ann", "1", Step(n=1))
    assert receipt.status == "waiting"


def test_taps_receive_events_while_redis_is_down(bus: Bus, own_redis: RedisServer) -> None:
    heard: list[str] = []

    def broken(_: object) -> None:
        raise RuntimeError

    bus.outbox.observers += [broken, lambda emission: heard.append(emission.id)]
    bus.emit("ann", "1", Step(n=0))
    assert bus.flush(5)
    away(bus, own_redis)
    receipt = bus.emit("ann", "1", Step(n=1))
    assert heard[-1] == receipt.id
    assert len(heard) <= 2, "not the one before"


def test_strict_returns_when_redis_has_it(bus: Bus) -> None:
    assert bus.emit("ann", "1", Step(n=1), strict=True).status == "published"
    assert bus.emit("ann", "1", State(n=1), strict=True).status == "published"


def test_strict_says_that_nothing_was_sent(bus: Bus, own_redis: RedisServer) -> None:
    away(bus, own_redis)
    depth = bus.outbox.depth
    with pytest.raises(Unavailable, match="nothing was sent"):
        bus.emit("ann", "1", Step(n=1), strict=True)
    assert bus.outbox.depth == depth


def test_strict_in_time_or_taken_back(settings: BusSettings, own_redis: RedisServer) -> None:
    bus = Bus(settings.model_copy(update={"strict_timeout": 0.2, "socket_timeout": 1.0, "breaker_after": 60.0}))
    assert bus.emit("ann", "1", Step(n=0), strict=True).status == "published"
    assert own_redis.process is not None
    own_redis.process.send_signal(signal.SIGSTOP)
    try:
        bus.emit("ann", "1", Step(n=1))
        wait_until(
            lambda: bus.outbox._buffer.in_flight.entries and not len(bus.outbox._buffer), "the first to be on its way"
        )
        with pytest.raises(Unavailable, match="nothing was sent"):
            bus.emit("ann", "1", Step(n=2), strict=True)
    finally:
        own_redis.process.send_signal(signal.SIGCONT)
    wait_until(lambda: bus.flush(1), "the first to arrive")
    assert RedisPublisher(settings).position("user:ann").offset == 2
    bus.close()


def test_strict_is_not_content_with_the_disk(settings: BusSettings, own_redis: RedisServer) -> None:
    bus = Bus(settings.model_copy(update={"strict_timeout": 1.0, "breaker_after": 60.0, "breaker_failures": 99}))
    assert bus.emit("ann", "1", Step(n=0), strict=True).status == "published"
    own_redis.kill()
    outcome: list[object] = []

    def strictly() -> None:
        try:
            outcome.append(bus.emit("ann", "1", Step(n=1), strict=True))
        except Unavailable as error:
            outcome.append(error)

    thread = threading.Thread(target=strictly)
    thread.start()
    wait_until(lambda: bus.outbox.depth, "the strict one to wait")
    for n in range(2, 300):
        bus.emit("ann", "1", Step(n=n))
    assert bus.outbox.spooled["spooled"]
    thread.join()
    bus.close()
    assert isinstance(outcome[0], Unavailable), outcome
    assert "disk" in str(outcome[0])


async def test_strict_for_async_code(bus: Bus, own_redis: RedisServer) -> None:
    assert (await bus.aemit("ann", "1", Step(n=1), strict=True)).status == "published"
    away(bus, own_redis)
    with pytest.raises(Unavailable):
        await bus.aemit("ann", "1", Step(n=1), strict=True)


def test_above_the_rate_the_last_state_comes_and_passing_news_is_refused(
    settings: BusSettings,
) -> None:
    bus = Bus(settings.model_copy(update={"channel_rate": 5}))
    receipts = [bus.emit("ann", "1", State(n=n)) for n in range(50)]
    wait_until(lambda: receipts[-1].status == "published", "the trailing state, by itself")
    assert sum(receipt.status == "published" for receipt in receipts) <= 15
    for n in range(20):
        bus.emit("bob", "1", Live(n=n))
    with pytest.raises(RateLimited) as caught:
        bus.emit("bob", "1", Live(n=20), strict=True)
    assert caught.value.limit == 5
    assert 0 < caught.value.retry_after <= 0.2
    bus.close()
