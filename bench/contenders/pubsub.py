"""Publisher and emitter of the contenders for which an event is one message on one channel of Redis' pub/sub."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import redis

from bench.contenders.contract import Emission

__all__ = ["SynchronousEmitter", "pubsub_adapter"]


class SynchronousEmitter:
    """An emitter whose `emit` returns when Redis has answered."""

    def wait(self, outstanding: int) -> None:
        """Nothing to wait for."""


class _PubSubAdapter(SynchronousEmitter):
    """A batch in one pipeline, a single one with a round trip of its own."""

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
    """Publisher and emitter, for a Redis URL. `message`: the channel of an event, and what is published there."""
    return partial(_PubSubAdapter, message)
