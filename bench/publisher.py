"""The publisher of one contender, in its own process: `python -m bench.publisher NAME REDIS_URL CONNECTIONS PROGRESS`.

A line on stdin, `fanout|direct RATE WARM SECONDS WINDOW`, makes it publish; it answers `{"steady": true, ...}` when
the measurement may begin and `{"published": n, ...}` at the end. `load/floor.c` understands the same.

RATE > 0 (events/s) is an open loop: what is due is published every millisecond, or when it is due where that is later,
and carries the time for which it was scheduled, so that a server that falls behind shows it in the latency (no
coordinated omission).

RATE 0 is flat out, a closed loop: never more than a window of events ahead of what the load generator has received
from the server (read in the mapped file PROGRESS). So the server always has work and its backlog is bounded. Which
window: a small one is tried, then twice as much, up to WINDOW or to a backlog of a quarter of a second's work; the
smallest one within 5 % of the best rate is measured.
"""

from __future__ import annotations

import json
import mmap
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.contenders.contract import Emission, Publisher
from bench.contenders.registry import load
from bench.payload import user_name

__all__ = ["LoadCommand", "PacedPublisher"]

_TICK: Final = 0.001  # least seconds between two batches at a given rate
_POLL: Final = 0.0003  # seconds between two looks at the window
_STEP: Final = 0.3  # seconds for which a window is tried
_DOUBLINGS: Final = 4  # the first window is WINDOW / 2**4
_MAX_BACKLOG: Final = 0.25  # seconds of the server's work
_RATE_TOLERANCE: Final = 0.95
_BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class LoadCommand:
    """A line on stdin. `rate` in events/s (0: flat out), `warm` and `seconds` in seconds, `window` in events."""

    direct: bool
    rate: float
    warm: float
    seconds: float
    window: int

    @classmethod
    def parse(cls, line: str) -> LoadCommand:
        kind, rate, warm, seconds, window = line.split()
        return cls(kind == "direct", float(rate), float(warm), float(seconds), int(window))


class PacedPublisher:
    """Publishes one order. `received` is read from the progress file: deliveries since the start of the order."""

    def __init__(self, publisher: Publisher, connections: int, progress: mmap.mmap, order: LoadCommand) -> None:
        self._publisher = publisher
        self._order = order
        self._users = [user_name(number) for number in range(connections)] if order.direct else [None]
        self._fan = 1 if order.direct else connections
        self._progress = progress
        self.published = 0

    def received(self) -> float:
        """Events that have arrived everywhere (a fraction while one is under way)."""
        (deliveries,) = struct.unpack_from("=Q", self._progress)
        return float(deliveries) / self._fan

    def _publish_until(self, target: int, begin: int) -> None:
        users, rate = self._users, self._order.rate
        while self.published < target:
            now = time.time_ns() // 1000
            batch = []
            for number in range(self.published, min(target, self.published + _BATCH)):
                at = begin + int(number / rate * 1e6) if rate else now
                batch.append(Emission(users[number % len(users)], number // len(users), at))
            self._publisher.publish(batch)
            self.published += len(batch)

    def publish_at_rate(self, end: float, begin: float, wall: int) -> None:
        """Publish at the rate until `end`. The order began at `begin` (both monotonic), or `wall` in us since 1970."""
        while (now := time.monotonic()) < end:
            self._publish_until(int((now - begin) * self._order.rate) + 1, wall)
            due = begin + self.published / self._order.rate
            time.sleep(max(_TICK, min(due, end) - time.monotonic()))

    def keep_window_full(self, end: float, window: int) -> None:
        """Keep a window of events outstanding until the monotonic time `end`."""
        while time.monotonic() < end:
            target = int(self.received()) + window
            if target > self.published:
                self._publish_until(target, 0)
            else:
                time.sleep(_POLL)

    def find_window(self) -> int:
        """The smallest window that keeps the server as busy as it gets; see the module."""
        rates: dict[int, float] = {}
        window = max(1, self._order.window >> _DOUBLINGS)
        while window <= self._order.window:
            before, since = self.received(), time.monotonic()
            self.keep_window_full(since + _STEP, window)
            rates[window] = (self.received() - before) / (time.monotonic() - since)
            if window > rates[window] * _MAX_BACKLOG:
                break
            window *= 2
        return min(window for window, rate in rates.items() if rate >= _RATE_TOLERANCE * max(rates.values()))


def _reply(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def perform(pump: PacedPublisher, order: LoadCommand) -> None:
    """Do what the order says and answer twice."""
    begin, wall = time.monotonic(), time.time_ns() // 1000
    if order.rate:
        pump.publish_at_rate(begin + order.warm, begin, wall)
        _reply(steady=True, window=0)
        cpu = time.process_time()
        pump.publish_at_rate(begin + order.warm + order.seconds, begin, wall)
    else:
        window = pump.find_window()
        pump.keep_window_full(time.monotonic() + order.warm, window)
        _reply(steady=True, window=window)
        cpu = time.process_time()
        pump.keep_window_full(time.monotonic() + order.seconds, window)
    _reply(published=pump.published, cpu=time.process_time() - cpu)


def main(name: str, redis_url: str, connections: str, progress: str) -> None:
    """Take orders until stdin ends."""
    make = load(name).publisher
    if make is None:
        raise SystemExit(f"{name} publishes by itself")
    publisher = make(redis_url)
    with Path(progress).open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
    _reply(ready=True)
    for line in sys.stdin:
        order = LoadCommand.parse(line)
        perform(PacedPublisher(publisher, int(connections), mapped, order), order)


if __name__ == "__main__":
    main(*sys.argv[1:])
