"""``flush`` sends waiting events from the calling thread: in order, once, within its timeout."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from eventbus import Bus, BusSettings, Event
from eventbus.backends.redis.publisher import RedisPublisher
from eventbus.backends.redis.reader import RedisReader
from tests.conftest import wait_until


class Item(Event, name="flushing.item"):
    n: int = 0


class Interrupted(Exception):
    pass


class Watched(RedisPublisher):
    """Says which thread used it."""

    used_by: list[str]

    def publish(self, requests):
        self.used_by.append(threading.current_thread().name)
        return super().publish(requests)


@pytest.fixture
def settings(bus_settings) -> BusSettings:
    # With such a long linger the thread alone sends nothing.
    return bus_settings.model_copy(update={"linger": 30.0})


@pytest.fixture
def bus(settings, monkeypatch):
    monkeypatch.setattr(Watched, "used_by", [], raising=False)
    monkeypatch.setattr("eventbus.bus.RedisPublisher", Watched)
    made = Bus(settings)
    made.emit("ann", "1", Item(n=0))
    assert made.flush(5)
    Watched.used_by.clear()
    yield made
    made.close()


def numbers(settings, user="ann"):
    async def read():
        reader = RedisReader(settings)
        history = await reader.read(f"user:{user}", 0)
        await reader.aclose()
        return [json.loads(entry.record.event)["data"]["n"] for entry in history.log]

    return asyncio.run(read())


@contextmanager
def silent(server) -> Iterator[None]:
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


def test_who_flushes_sends_it(bus, settings):
    receipt = bus.emit("ann", "1", Item(n=1))
    assert bus.flush(5)
    assert receipt.status == "published"
    assert Watched.used_by == ["MainThread"]
    assert numbers(settings) == [0, 1]


def test_many_threads_flush_and_each_ones_order_is_kept(bus, settings):
    whole = []

    def work(user: str) -> None:
        for n in range(100):
            bus.emit(user, "1", Item(n=n))
            whole.append(bus.flush(10))

    threads = [threading.Thread(target=work, args=(f"u{i}",), name=f"u{i}") for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(whole)
    assert bus.outbox.depth == 0
    for i in range(4):
        assert numbers(settings, f"u{i}") == list(range(100))


def own_bus(server, **more):
    settings = BusSettings(redis_url=server.url, linger=30.0, breaker_failures=100, breaker_after=600.0, **more)
    bus = Bus(settings)
    bus.emit("ann", "1", Item(n=0))
    assert bus.flush(5)
    return bus, settings


def test_a_silent_redis_is_waited_for_as_long_as_the_flush_may(own_redis):
    # Were it the socket's time that counts, this would not end.
    bus, settings = own_bus(own_redis, socket_timeout=600.0)
    with silent(own_redis):
        receipt = bus.emit("ann", "1", Item(n=1))
        assert not bus.flush(0.2)
        bus.emit("ann", "1", Item(n=2))
    wait_until(lambda: bus.flush(1), "the outbox to empty", 20)
    assert receipt.status in ("published", "duplicate")
    assert numbers(settings) == [0, 1, 2]
    bus.close()


def test_a_flush_does_not_send_while_another_flush_is_sending(own_redis):
    bus, settings = own_bus(own_redis, socket_timeout=600.0)
    with silent(own_redis):
        bus.emit("ann", "1", Item(n=1))
        first = threading.Thread(target=bus.flush, args=(0.5,))
        first.start()
        wait_until(lambda: bus.outbox._buffer.in_flight.entries, "the first to be on its way")
        bus.emit("ann", "1", Item(n=2))
        assert not bus.flush(0.1)
        first.join()
    wait_until(lambda: bus.flush(1), "the outbox to empty", 20)
    assert numbers(settings) == [0, 1, 2]
    bus.close()


def test_what_interrupts_a_flush_loses_nothing(own_redis):
    bus, settings = own_bus(own_redis, socket_timeout=600.0)

    def interrupt(*_: object) -> None:
        raise Interrupted

    former = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with silent(own_redis):
            bus.emit("ann", "1", Item(n=1))
            timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1))
            timer.start()
            with pytest.raises(Interrupted):
                bus.flush(60)
            timer.join()
            bus.emit("ann", "1", Item(n=2))
    finally:
        signal.signal(signal.SIGUSR1, former)
    wait_until(lambda: bus.flush(1), "the outbox to empty", 20)
    assert numbers(settings) == [0, 1, 2]
    bus.close()


def test_a_connection_that_the_server_has_closed_is_made_again_without_a_failure(bus, settings, redis_server):
    redis_server.client.client_kill_filter(_type="normal", skipme=True)
    bus.emit("ann", "1", Item(n=1))
    assert bus.flush(5)
    assert Watched.used_by[-1] == "eventbus-outbox", "who flushes does not wait for a connection"
    assert bus.outbox.failures == 0
    assert numbers(settings) == [0, 1]
    bus.emit("ann", "1", Item(n=2))
    assert bus.flush(5)
    assert Watched.used_by[-1] == "MainThread"
