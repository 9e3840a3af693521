"""Publisher and emitter for contenders with one Redis pub/sub message per event."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import redis

from bench.contenders.contract import Emission

__all__ = ["SynchronousEmitter", "pubsub_adapter"]


class SynchronousEmitter:
    """An emitter whose `emit` returns after the reply of Redis."""

    def wait(self, outstanding: int) -> None:
        """Return immediately."""


class _PubSubAdapter(SynchronousEmitter):
    """Publishes a batch in one pipeline, and emits one event per round trip."""

    def __init__(self, message: Callable[[Emission], tuple[str, bytes]], redis_url: str) -> None:
        self._message = message
        self._redis = redis.Redis.from_url(redis_url)

    def publish(self, batch: Sequence[Emission]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for emission in batch:
            pipeline.publish(*self._message(emission))
        pipeline.execute()

    def emit(self, emission: Emission) -> None:
        self._redis.publish(*self._message(emission))


def pubsub_adapter(message: Callable[[Emission], tuple[str, bytes]]) -> Callable[[str], _PubSubAdapter]:
    """Return a function that creates publisher and emitter for a Redis URL.

    Args:
        message: returns channel and payload of an event.
    """
    return partial(_PubSubAdapter, message)
