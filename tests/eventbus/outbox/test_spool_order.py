"""A topic keeps its order however its process ends: random interleavings of put, fail, flush, close and adopt."""

from __future__ import annotations

import itertools
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventbus import BusSettings, Event
from eventbus.backends.memory.adapters import MemoryBroker, MemoryPublisher
from eventbus.backends.ports import Published, Request
from eventbus.errors import Unavailable
from eventbus.events.encoder import Emission, EmissionBuilder
from eventbus.outbox.outbox import Outbox
from eventbus.outbox.spool import Spool
from tests.conftest import wait_until


class Numbered(Event, name="order.numbered"):
    n: int


class Urgent(Event, name="order.urgent", lane="high"):
    n: int


BUILDER = EmissionBuilder(BusSettings())


class Redis:
    """A server that can be unreachable. It writes down what it takes; ids that it knows are no news."""

    def __init__(self) -> None:
        self.down = False
        self.taken: list[Emission] = []
        self._broker = MemoryBroker(BusSettings(redis_url="memory://"))

    def connect(self) -> MemoryPublisher:
        return _Publisher(self)

    def of(self, topic: str) -> list[str]:
        return list(dict.fromkeys(emission.id for emission in self.taken if emission.topic == topic))


class _Publisher(MemoryPublisher):
    def __init__(self, redis: Redis) -> None:
        super().__init__(redis._broker)
        self._redis = redis

    def publish(self, requests: Sequence[Request]) -> list[Published | Exception]:
        if self._redis.down:
            raise Unavailable("down")
        answers = super().publish(requests)
        self._redis.taken += [emission for request in requests for emission in request.emissions]
        return answers


def outbox_on(redis: Redis, folder: Path, limit: int = 1000) -> Outbox:
    bounds = BusSettings(
        spool_dir=folder, outbox_events=limit, retry_min=0.001, retry_max=0.003, linger=0.0005, socket_timeout=1
    )
    return Outbox(bounds, redis.connect)


def numbered(topic: str, n: int, *, urgent: bool = False) -> Emission:
    return BUILDER.build(f"user:ann:{topic}", Urgent(n=n) if urgent else Numbered(n=n))


def on_disk(folder: Path) -> list[str]:
    spool = Spool(BusSettings(spool_dir=folder))
    spool.look_for_orphans()
    found = [entry.id for entry in iter(lambda: next(iter(spool.take(1)), None), None) if isinstance(entry, Emission)]
    spool.close(forked=True)
    return found


@pytest.mark.parametrize("before", [1, 3])
@pytest.mark.parametrize("pause", [0.005, 0.05])
@pytest.mark.parametrize("flushes", [False, True])
def test_a_process_that_ends_while_redis_is_down_writes_its_spool_in_order(
    tmp_path: Path, before: int, pause: float, flushes: bool
) -> None:
    redis = Redis()
    redis.down = True
    outbox = outbox_on(redis, tmp_path)
    events = [numbered("operation:1", n) for n in range(before + 3)]
    for event in events[:before]:
        outbox.put(event)
    time.sleep(pause)
    if flushes:
        outbox.flush(0.01)
    for event in events[before:]:
        outbox.put(event)
    assert not outbox.close(0.01)
    assert on_disk(tmp_path) == [event.id for event in events]


def test_an_outbox_that_is_used_after_close_sends_its_own_spool_first(tmp_path: Path) -> None:
    redis = Redis()
    redis.down = True
    outbox = outbox_on(redis, tmp_path)
    events = [numbered("operation:1", n) for n in range(2)]
    outbox.put(events[0])
    outbox.close(0.01)
    redis.down = False
    outbox.put(events[1])
    wait_until(lambda: len(redis.taken) == 2, "both events")
    assert redis.of(events[0].topic) == [event.id for event in events]
    outbox.close(1)


class _Stuck(_Publisher):
    """Its first attempt takes until it is released."""

    release = threading.Event()
    entered = threading.Event()

    def publish(self, requests: Sequence[Request]) -> list[Published | Exception]:
        if not self.release.is_set():
            self.entered.set()
            self.release.wait(10)
            raise Unavailable("timed out")
        return super().publish(requests)


def test_a_thread_that_outlives_close_sends_nothing_more(tmp_path: Path) -> None:
    redis, others = Redis(), set(threading.enumerate())
    outbox = Outbox(BusSettings(spool_dir=tmp_path, socket_timeout=0.01, linger=0), lambda: _Stuck(redis))
    events = [numbered("operation:1", n) for n in range(20)]
    outbox.put(events[0])
    assert _Stuck.entered.wait(5)
    outbox.close(0.01)
    for event in events[1:]:
        outbox.put(event)
    _Stuck.release.set()
    wait_until(lambda: len(set(redis.of(events[0].topic))) == 20, "all events")
    assert redis.of(events[0].topic) == [event.id for event in events]
    threads = [thread for thread in set(threading.enumerate()) - others if thread.name == "eventbus-outbox"]
    assert len(threads) == 1
    outbox.close(1)


steps = st.one_of(
    st.tuples(st.just("put"), st.sampled_from("abc"), st.integers(1, 4)),
    st.tuples(st.just("urgent"), st.sampled_from("abc"), st.integers(1, 2)),
    st.tuples(st.just("redis"), st.booleans(), st.just(0)),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.001, 0.003]), st.just(0)),
    st.tuples(st.just("flush"), st.sampled_from([0.0, 0.002]), st.just(0)),
    st.tuples(st.just("close"), st.booleans(), st.just(0)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, min_size=2, max_size=25), st.sampled_from([8, 1000]))
def test_no_event_overtakes_its_topic_and_none_is_lost(happens: list[tuple[str, object, int]], limit: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, redis, numbers = Path(name), Redis(), itertools.count()
        outbox = outbox_on(redis, folder, limit)
        put: dict[str, list[str]] = defaultdict(list)
        for what, how, many in happens:
            if what in ("put", "urgent"):
                for _ in range(many):
                    event = numbered(str(how), next(numbers), urgent=what == "urgent")
                    put[event.topic].append(event.id)
                    outbox.put(event)
            elif what == "redis":
                redis.down = not how
            elif what == "wait":
                time.sleep(float(how))  # type: ignore[arg-type]
            elif what == "flush":
                outbox.flush(float(how))  # type: ignore[arg-type]
            else:
                outbox.close(0.002)
                # Another process, or the same one once more.
                outbox = outbox_on(redis, folder, limit) if how else outbox
        redis.down = False
        outbox.close(2)
        last = outbox_on(redis, folder, limit)
        last.start()
        wait_until(lambda: last.spool_bytes == 0 and last.flush(1), "the spool to be drained")
        last.close(1)
        assert {topic: redis.of(topic) for topic in put} == dict(put)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    _Stuck.release.clear()
    _Stuck.entered.clear()
    yield
    _Stuck.release.set()
