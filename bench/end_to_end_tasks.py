"""The tasks of `bench.end_to_end`: `celery -A bench.end_to_end_tasks worker`."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Sequence
from typing import Final

from celery import Celery

from bench.contenders.contract import Emission
from bench.payload import OPERATION, TOPIC, padding
from bench.publisher import LoadCommand, PacedPublisher
from eventbus import Event, announce, emit
from worker_adapter import install

__all__ = ["app", "pump"]

_URL: Final = os.environ.get("BENCH_REDIS")

app = Celery("bench.end_to_end_tasks", broker=_URL, backend=_URL)
install(app)


class Mixed(Event, name="bench.both"):
    """The event of the benchmark with the number of its stream. Events are ordered within a stream."""

    of: int
    seq: int
    at: int
    pad: str


class _Streams:
    """The publisher of the two streams."""

    def __init__(self) -> None:
        own = len('"of":0,')
        self._pads = {True: padding(None)[own:], False: padding("u00000")[own:]}

    def publish(self, batch: Sequence[Emission]) -> None:
        for user, seq, at in batch:
            pad = self._pads[user is None]
            if user is None:
                announce(Mixed(of=0, seq=seq, at=at, pad=pad), topic=TOPIC)
            else:
                emit(user, OPERATION, Mixed(of=1, seq=seq, at=at, pad=pad))


@app.task(name="bench.end_to_end_tasks.pump")  # type: ignore[untyped-decorator]
def pump(rate: float, seconds: float, connections: int, direct: bool) -> dict[str, float]:
    """Emit at a rate. Returns the number of events and the CPU time of the task's process."""
    order = LoadCommand(direct=direct, rate=rate, warm=0, seconds=seconds, window=0)
    with mmap.mmap(-1, 8) as unused:
        source = PacedPublisher(_Streams(), connections, unused, order)
        begin, wall, cpu = time.monotonic(), time.time_ns() // 1000, time.process_time()
        source.publish_at_rate(begin + seconds, begin, wall)
        return {"published": source.published, "cpu": time.process_time() - cpu}
