"""Publisher and emitter of the contenders for which an event is one message on one channel of Redis' pub/sub."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import redis

from bench.contenders.contract import Emission

__all__ = ["Answered", "messages_of"]


class Answered:
    """An emitter whose `emit` returns when Redis has answered."""

    def wait(self, behind: int) -> None:
        """Nothing to wait for."""


class _Messages(Answered):
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


def messages_of(message: Callable[[Emission], tuple[str, bytes]]) -> Callable[[str], _Messages]:
    """Publisher and emitter, for a Redis URL. `message`: the channel of an event, and what is published there."""
    return partial(_Messages, message)
