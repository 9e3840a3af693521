"""The outbox's thread: lazy, fork-safe, bounded, patient with Redis, and never in the caller's way."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from eventbus import Bus, BusSettings, Event
from eventbus.backends.memory.adapters import MemoryBroker, MemoryPublisher
from eventbus.backends.redis.reader import RedisReader
from eventbus.events.encoder import EmissionBuilder
from eventbus.outbox.outbox import Outbox
from eventbus.protocol.topics import operation_topic
from tests.conftest import wait_until


class Item(Event, name="outbox.item"):
    n: int = 0
    pad: str = ""


class Urgent(Event, name="outbox.urgent", lane="high"):
    n: int = 0


class Progress(Event, name="outbox.progress", keep="latest"):
    n: int = 0


@pytest.fixture
def bus(bus_settings):
    bus = Bus(bus_settings)
    yield bus
    bus.close()


async def logged(settings, channel="user:42"):
    reader = RedisReader(settings)
    history = await reader.read(channel, 0)
    await reader.aclose()
    return [json.loads(entry.record.event) for entry in history.log]


def outbox_threads():
    return [thread for thread in threading.enumerate() if thread.name == "eventbus-outbox"]


async def test_no_thread_and_no_connection_before_the_first_event(bus_settings):
    before = len(outbox_threads())
    bus = Bus(bus_settings)
    assert len(outbox_threads()) == before
    bus.emit("42", "9", Item())
    assert len(outbox_threads()) == before + 1
    assert bus.close()
    wait_until(lambda: len(outbox_threads()) == before, "the thread to end")
    bus.emit("42", "9", Item(n=2))
    assert bus.close()
    assert [event["data"]["n"] for event in await logged(bus_settings)] == [0, 2]


async def test_many_threads_emit_and_each_ones_order_is_kept(bus, bus_settings):
    def emit(user: str) -> None:
        for n in range(300):
            bus.emit(user, "9", Item(n=n))

    threads = [threading.Thread(target=emit, args=(f"u{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: bus.flush(1), "the outbox to empty", 20)
    for i in range(4):
        assert [e["data"]["n"] for e in await logged(bus_settings, f"user:u{i}")] == list(range(300))


async def test_what_cannot_be_sent_at_all_costs_the_others_nothing(bus_settings):
    bus = Bus(bus_settings)
    builder = EmissionBuilder(bus_settings)
    entries = [builder.build(operation_topic(user, "9"), Item(n=1)) for user in ("ann", "bob", "cid")]
    entries[1].tail = "\ud800"  # nothing that emit lets pass
    with bus.outbox._thread.lock:
        for entry in entries:
            bus.outbox.put(entry)
    assert not bus.flush(0.5)
    assert [entry.receipt.status for entry in entries] == ["published", "waiting", "published"]
    bus.close()


def test_a_forked_child_has_a_separate_outbox(bus, bus_settings):
    bus.emit("42", "parent", Item(n=1))
    bus.flush(5)
    bus.emit("42", "parent", Item(n=2))  # may wait in the parent's outbox at the fork; the child must not send it too
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            bus.emit("42", "child", Item(n=3))
            code = 0 if bus.flush(5) else 2
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert bus.flush(5)
    assert sorted(event["data"]["n"] for event in asyncio.run(logged(bus_settings))) == [1, 2, 3]


async def test_while_redis_is_down_states_conflate_and_log_events_wait(own_redis):
    settings = BusSettings(redis_url=own_redis.url, socket_timeout=0.3, connect_timeout=0.3, retry_max=0.2)
    bus = Bus(settings)
    bus.emit("42", "9", Item(n=0))
    assert bus.flush(5)
    own_redis.kill()
    first = bus.emit("42", "9", Item(n=1))
    wait_until(lambda: bus.outbox.failures > 0, "the outbox to notice")
    receipts = [bus.emit("42", "9", Progress(n=n)) for n in range(50)]
    for n in range(2, 5):
        bus.emit("42", "9", Item(n=n))
    assert not bus.flush(0.05)
    assert first.status == "waiting"
    own_redis.start()
    wait_until(lambda: bus.flush(1), "the outbox to empty", 20)
    assert [receipt.status for receipt in receipts] == ["merged"] * 49 + ["published"]
    assert [event["data"]["n"] for event in await logged(settings)] == [1, 2, 3, 4]
    assert bus.outbox.dropped == {"merged": 49}
    bus.close()


def test_emit_does_not_wait_for_a_silent_redis(own_redis):
    settings = BusSettings(redis_url=own_redis.url, socket_timeout=0.5, flush_budget=0.2)
    bus = Bus(settings)
    own_redis.process.send_signal(signal.SIGSTOP)
    # With a wait of half a second each they would take more than the time limit of the test.
    for n in range(1000):
        bus.emit("42", "9", Item(n=n))
    assert not bus.flush()
    own_redis.process.send_signal(signal.SIGCONT)
    wait_until(lambda: bus.flush(1), "the outbox to empty", 20)
    assert bus.outbox.dropped == {}
    bus.close()


def test_a_full_outbox_counts_drops_and_updates_the_receipt():
    settings = BusSettings(redis_url="redis://127.0.0.1:1/0", outbox_events=10, flush_budget=0, spool=False)
    bus = Bus(settings)
    bus.emit("42", "9", Item())
    wait_until(lambda: bus.outbox.failures > 0, "the outbox to notice")
    receipts = [bus.emit("42", "9", Item(n=n)) for n in range(15)]
    dropped = [receipt for receipt in receipts if receipt.status == "dropped"]
    assert len(dropped) == bus.outbox.dropped["full"] == 5
    assert {receipt.reason for receipt in dropped} == {"full"}
    assert bus.outbox.depth <= 11
    bus.close()


async def test_a_burst_larger_than_a_batch_goes_out_whole(bus, bus_settings):
    receipts = [bus.emit("42", "9", Item(n=n)) for n in range(3000)]
    wait_until(lambda: bus.flush(1), "the outbox to empty", 20)
    assert [receipt.offset for receipt in receipts] == list(range(1, 3001))
    assert len(await logged(bus_settings)) == 3000


class HeldBack:
    """A publisher whose first batch is on its way until the gate is opened."""

    def __init__(self, settings: BusSettings) -> None:
        self.publisher = MemoryPublisher(MemoryBroker(settings))
        self.gate = threading.Event()
        self.sizes: list[int] = []

    def publish(self, requests):
        self.sizes.append(sum(len(request.emissions) for request in requests))
        self.gate.wait(10)
        return self.publisher.publish(requests)

    def position(self, channel):
        return self.publisher.position(channel)

    def delivery_status(self, channel, id_):
        return self.publisher.delivery_status(channel, id_)

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("more", "sizes"), [(Item, [1, 100, 100]), (Urgent, [1, *[25] * 8])])
def test_batches_are_short_where_something_is_urgent(more, sizes):
    settings = BusSettings(redis_url="memory://", batch_events=100, spool=False)
    held, builder = HeldBack(settings), EmissionBuilder(settings)
    outbox = Outbox(settings, lambda: held)
    outbox.put(builder.build("user:42:operation:1", Item()))
    wait_until(lambda: held.sizes, "the first batch to be on its way")
    for n in range(199):
        outbox.put(builder.build("user:42:operation:1", Item(n=n)))
    outbox.put(builder.build("user:42:operation:2", more()))
    held.gate.set()
    assert outbox.close(10)
    assert held.sizes == sizes


async def test_an_event_that_the_server_refuses_is_dropped_and_the_rest_goes_on(bus, bus_settings, redis_server):
    bus.emit("bad", "9", Item())
    assert bus.flush(5)
    redis_server.client.set(f"{bus_settings.key_prefix}:{{user:bad}}:log", "not a stream", ex=60)
    bad = bus.emit("bad", "9", Item())
    good = bus.emit("good", "9", Item())
    assert not bus.flush(5), "one event was dropped"
    assert (bad.status, good.status) == ("dropped", "published")
    assert bus.outbox.dropped == {"refused": 1}


def test_flush_waits_for_what_was_there_and_not_for_what_comes(bus):
    stop = threading.Event()

    def chatter() -> None:
        n = 0
        while not stop.is_set():
            bus.emit("chatter", "9", Item(n=n))
            n += 1
            stop.wait(0.0005)

    thread = threading.Thread(target=chatter)
    thread.start()
    try:
        for _ in range(20):
            receipt = bus.emit("42", "9", Item())
            assert bus.flush(5)
            assert receipt.status == "published"
    finally:
        stop.set()
        thread.join()


def test_a_process_that_ends_flushes_first(bus_settings, tmp_path):
    script = tmp_path / "once.py"
    script.write_text(
        "from eventbus import Event, emit\n"
        "class Last(Event, name='outbox.last'):\n    n: int\n"
        "for n in range(100): emit('42', '9', Last(n=n))\n"
    )
    environment = {
        **os.environ,
        "EVENTBUS_REDIS_URL": bus_settings.redis_url,
        "EVENTBUS_KEY_PREFIX": bus_settings.key_prefix,
        "PYTHONPATH": str(Path.cwd()),
    }
    subprocess.run([sys.executable, str(script)], env=environment, check=True)
    assert len(asyncio.run(logged(bus_settings))) == 100


def test_urgent_events_do_not_linger(bus_settings):
    bus = Bus(bus_settings.model_copy(update={"linger": 30.0}))
    receipt = bus.emit("42", "9", Urgent())
    wait_until(lambda: receipt.status == "published", "the high lane to go out without lingering")
    bus.close()
