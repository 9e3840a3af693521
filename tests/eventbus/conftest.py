"""Both backends behind the same ports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest

from eventbus import BusSettings
from eventbus.backends.factory import connect
from eventbus.backends.memory.adapters import MemoryBroker, MemoryPublisher
from eventbus.backends.ports import Publisher, Reader
from eventbus.backends.redis.publisher import RedisPublisher
from eventbus.backends.subscription import Subscriber
from eventbus.events.encoder import EmissionBuilder
from tests.eventbus.backends.operation import Redis


@dataclass
class Ends:
    """The ports of one backend, and its settings."""

    settings: BusSettings
    publisher: Publisher
    reader: Reader
    subscriber: Subscriber
    builder: EmissionBuilder
    another: Callable[[], Publisher]


@pytest.fixture(params=["redis", "cluster", "memory"])
async def ends(request, bus_settings) -> AsyncIterator[Ends]:
    settings = bus_settings.model_copy(update={"log_limit": 50, "snapshot_limit": 20, "dedup_window": 100})
    broker = None
    if request.param == "cluster":
        settings = settings.model_copy(update={"redis_url": request.getfixturevalue("redis_cluster").url})
    if request.param == "memory":
        settings = settings.model_copy(update={"redis_url": "memory://"})
        broker = MemoryBroker(settings)
    subscriber, reader = connect(settings, broker=broker)

    def another() -> Publisher:
        return RedisPublisher(settings) if broker is None else MemoryPublisher(broker)

    publisher = another()
    yield Ends(settings, publisher, reader, subscriber, EmissionBuilder(settings), another)
    publisher.close()
    await subscriber.aclose()
    await reader.aclose()


@pytest.fixture
async def real(bus_settings) -> AsyncIterator[Redis]:
    own = Redis(bus_settings.model_copy(update={"part_patience": timedelta(0)}))
    yield own
    await own.aclose()
