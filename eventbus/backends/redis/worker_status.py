"""Outbox statistics of a worker's processes, kept in Redis so that any of them can answer for the
worker.
"""

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
    """Reports and reads the statistics. It blocks; one thread uses it at a time.

    Every method raises ``Unavailable`` or ``Refused``.

    Args:
        settings: address, time limits and the keys' prefix.
    """

    def __init__(self, settings: BusSettings) -> None:
        self._keys = Keys.of(settings)
        self._redis = RedisPublisher(settings)

    def report(self, worker: str, process: int, status: Mapping[str, object]) -> None:
        """Save the statistics of a process. Redis forgets them a minute after the worker's last
        report.

        Args:
            worker: the worker's name.
            process: the process's id.
            status: the statistics; JSON must be able to represent them.
        """
        key = self._keys.outbox(worker)
        self._redis.execute(("HSET", key, process, json.dumps(status)), ("EXPIRE", key, _LIFE))

    def of(self, worker: str) -> dict[str, dict[str, object]]:
        """Read the last statistics of a worker's processes, also of those that have ended and were
        not dropped.

        Args:
            worker: the worker's name.

        Returns:
            Process id -> statistics; 1,000 processes at most.
        """
        (found,) = self._redis.execute(("HGETALL", self._keys.outbox(worker)))
        pairs = zip(found[: 2 * _MOST : 2], found[1 : 2 * _MOST : 2], strict=True)
        return {process.decode(): json.loads(status) for process, status in pairs}

    def drop(self, worker: str, processes: list[str]) -> None:
        """Forget processes that have ended.

        Args:
            worker: the worker's name.
            processes: their ids.
        """
        if processes:
            self._redis.execute(("HDEL", self._keys.outbox(worker), *processes))

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()
