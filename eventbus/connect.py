"""From settings to a transport's asynchronous ends: what a gateway reads from."""

from __future__ import annotations

from eventbus.memory import MemoryBroker, MemoryReader, MemorySubscriber
from eventbus.redis.reader import RedisReader
from eventbus.redis.subscriber import RedisSubscriber
from eventbus.settings import BusSettings
from eventbus.transport import Reader, Subscriber

__all__ = ["connect"]


def connect(
    settings: BusSettings, *, broker: MemoryBroker | None = None, history_connections: int = 16
) -> tuple[Subscriber, Reader]:
    """Subscriber and reader for a gateway. With a broker everything stays in the process."""
    if broker is not None:
        return MemorySubscriber(broker), MemoryReader(broker)
    return RedisSubscriber(settings), RedisReader(settings, max_connections=history_connections)
