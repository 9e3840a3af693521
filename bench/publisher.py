"""The publisher of a contender as a separate process: `python -m bench.publisher NAME REDIS_URL CONNECTIONS PROGRESS`.

A line on stdin, `fanout|direct RATE WARM SECONDS WINDOW`, is a command. The reply is `{"steady": true, ...}` when the
measurement may begin and `{"published": n, ...}` at the end. `load/floor.c` has the same commands.

RATE > 0 (events/s) is an open loop. At most every millisecond the publisher sends all events that are due. Each event
carries its scheduled time, so that the latency shows a server that falls behind (no coordinated omission).

RATE 0 is flat out, a closed loop. The publisher stays at most a window of events ahead of the events that the load
generator has received (in the mapped file PROGRESS). The server therefore always has work, and its backlog is bounded.
The publisher doubles a small window up to WINDOW or a backlog of a quarter of a second. It then measures with the
smallest window within 5 % of the best rate.
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

_TICK: Final = 0.001  # shortest time between two batches in seconds
_POLL: Final = 0.0003  # seconds between two checks of the window
_STEP: Final = 0.3  # duration of the trial of a window in seconds
_DOUBLINGS: Final = 4  # the first window is WINDOW / 2**4
_MAX_BACKLOG: Final = 0.25  # in seconds of the server's work
_RATE_TOLERANCE: Final = 0.95
_BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class LoadCommand:
    """A command. `rate` in events/s (0: flat out), `warm` and `seconds` in seconds, `window` in events."""

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
    """Executes one command. The progress file has the number of deliveries since its start."""

    def __init__(self, publisher: Publisher, connections: int, progress: mmap.mmap, command: LoadCommand) -> None:
        self._publisher = publisher
        self._command = command
        self._users = [user_name(number) for number in range(connections)] if command.direct else [None]
        self._fan = 1 if command.direct else connections
        self._progress = progress
        self.published = 0

    def received(self) -> float:
        """Return the events that all receivers have received. Partly delivered events count as fractions."""
        (deliveries,) = struct.unpack_from("=Q", self._progress)
        return float(deliveries) / self._fan

    def _publish_until(self, target: int, begin: int) -> None:
        users, rate = self._users, self._command.rate
        while self.published < target:
            now = time.time_ns() // 1000
            batch = []
            for number in range(self.published, min(target, self.published + _BATCH)):
                at = begin + int(number / rate * 1e6) if rate else now
                batch.append(Emission(users[number % len(users)], number // len(users), at))
            self._publisher.publish(batch)
            self.published += len(batch)

    def publish_at_rate(self, end: float, begin: float, wall: int) -> None:
        """Publish at the rate until `end`.

        Args:
            end: end of the command, monotonic.
            begin: begin of the command, monotonic.
            wall: begin of the command in microseconds since 1970.
        """
        while (now := time.monotonic()) < end:
            self._publish_until(int((now - begin) * self._command.rate) + 1, wall)
            due = begin + self.published / self._command.rate
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
        """Return the smallest window that saturates the server; see the module."""
        rates: dict[int, float] = {}
        window = max(1, self._command.window >> _DOUBLINGS)
        while window <= self._command.window:
            before, since = self.received(), time.monotonic()
            self.keep_window_full(since + _STEP, window)
            rates[window] = (self.received() - before) / (time.monotonic() - since)
            if window > rates[window] * _MAX_BACKLOG:
                break
            window *= 2
        return min(window for window, rate in rates.items() if rate >= _RATE_TOLERANCE * max(rates.values()))


def _reply(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def perform(publisher: PacedPublisher, command: LoadCommand) -> None:
    """Execute a command and reply twice."""
    begin, wall = time.monotonic(), time.time_ns() // 1000
    if command.rate:
        publisher.publish_at_rate(begin + command.warm, begin, wall)
        _reply(steady=True, window=0)
        cpu = time.process_time()
        publisher.publish_at_rate(begin + command.warm + command.seconds, begin, wall)
    else:
        window = publisher.find_window()
        publisher.keep_window_full(time.monotonic() + command.warm, window)
        _reply(steady=True, window=window)
        cpu = time.process_time()
        publisher.keep_window_full(time.monotonic() + command.seconds, window)
    _reply(published=publisher.published, cpu=time.process_time() - cpu)


def main(name: str, redis_url: str, connections: str, progress: str) -> None:
    """Execute commands until stdin ends."""
    make = load(name).publisher
    if make is None:
        raise SystemExit(f"cannot publish: {name} publishes itself")
    publisher = make(redis_url)
    with Path(progress).open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
    _reply(ready=True)
    for line in sys.stdin:
        command = LoadCommand.parse(line)
        perform(PacedPublisher(publisher, int(connections), mapped, command), command)


if __name__ == "__main__":
    main(*sys.argv[1:])
