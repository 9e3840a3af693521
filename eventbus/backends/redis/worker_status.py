"""What the processes of a worker say of their outboxes, for whoever asks the worker."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from eventbus.backends.redis.publisher import RedisPublisher
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.settings import BusSettings

__all__ = ["WorkerStatus"]

_LIFE: Final = 60
_MOST: Final = 1_000


class WorkerStatus:
    """Blocking, for one thread at a time. Every method raises Unavailable or Refused."""

    def __init__(self, settings: BusSettings) -> None:
        self._keys = Keys(settings.key_prefix)
        self._redis = RedisPublisher(settings)

    def report(self, worker: str, process: int, said: Mapping[str, object]) -> None:
        """Note what a process says; forgotten when no process of the worker has said anything for a minute."""
        key = self._keys.outbox(worker)
        self._redis.execute(("HSET", key, process, json.dumps(said)), ("EXPIRE", key, _LIFE))

    def of(self, worker: str) -> dict[str, dict[str, object]]:
        """Process id -> what it said last. Processes that are gone are among them until they are dropped."""
        (found,) = self._redis.execute(("HGETALL", self._keys.outbox(worker)))
        pairs = zip(found[: 2 * _MOST : 2], found[1 : 2 * _MOST : 2], strict=True)
        return {process.decode(): json.loads(said) for process, said in pairs}

    def drop(self, worker: str, processes: list[str]) -> None:
        """Forget processes that are gone."""
        if processes:
            self._redis.execute(("HDEL", self._keys.outbox(worker), *processes))

    def close(self) -> None:
        """Give the connection up."""
        self._redis.close()
