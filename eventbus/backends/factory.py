"""From settings to a transport's asynchronous ends: what a gateway reads from."""

from __future__ import annotations

from eventbus.backends.memory.adapters import (
    MemoryBroker,
    MemoryOperations,
    MemoryPendingStore,
    MemoryReader,
    MemorySubscriber,
)
from eventbus.backends.pending import PendingStore
from eventbus.backends.ports import Probe, Reader, Subscriber
from eventbus.backends.redis.operation_store import RedisOperations
from eventbus.backends.redis.pending_store import RedisPendingStore
from eventbus.backends.redis.probe import RedisProbe
from eventbus.backends.redis.reader import RedisReader
from eventbus.backends.redis.subscriber import RedisSubscriber
from eventbus.operations.store import OperationStore
from eventbus.settings import BusSettings

__all__ = ["connect", "connect_operation_store", "connect_pending_store", "connect_probe"]


def connect(
    settings: BusSettings, *, broker: MemoryBroker | None = None, history_calls: int = 20_000
) -> tuple[Subscriber, Reader]:
    """Subscriber and reader for a gateway. With a broker everything stays in the process."""
    if broker is not None:
        return MemorySubscriber(broker), MemoryReader(broker)
    return RedisSubscriber(settings), RedisReader(settings, most_waiting=history_calls)


def connect_pending_store(
    settings: BusSettings, reader: Reader, *, broker: MemoryBroker | None = None
) -> PendingStore | None:
    """What users are owed, through the reader's connections; None for a reader that is none of ours."""
    if broker is not None:
        return MemoryPendingStore(broker)
    return RedisPendingStore(settings, reader) if isinstance(reader, RedisReader) else None


def connect_operation_store(
    settings: BusSettings, reader: Reader, *, broker: MemoryBroker | None = None
) -> OperationStore | None:
    """Where operations are written down, through the reader's connections; None for a reader that is none of ours."""
    if broker is not None:
        return MemoryOperations(broker)
    return RedisOperations(settings, reader) if isinstance(reader, RedisReader) else None


def connect_probe(settings: BusSettings, *, broker: MemoryBroker | None = None) -> Probe | None:
    """What a gateway sees by whether Redis is well. In the process there is nothing to be ill."""
    return None if broker is not None else RedisProbe(settings)
