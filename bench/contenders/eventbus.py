"""The event bus: `emit` and `announce` in the publisher, `python -m webui_adapter` as the server."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from bench.contenders.contract import SECRET, Command, Contender, Emission, Launch
from bench.payload import NAME, OPERATION, TOPIC, padding
from eventbus import Event, Receipt, announce, emit

__all__ = ["OURS", "Tick", "bus_of"]

_POLL = 0.001  # seconds between two checks of a receipt


class Tick(Event, name=NAME):
    """The event of the benchmark. The log keeps it, as by default."""

    seq: int
    at: int
    pad: str


class _Bus:
    """Publisher and emitter. Both use the same call."""

    def __init__(self, tick: Callable[..., Event], redis_url: str) -> None:
        self._tick = tick
        os.environ["EVENTBUS_REDIS_URL"] = redis_url
        self._pads = {True: padding(None), False: padding("u00000")}
        self._waiting: deque[Receipt] = deque()

    def publish(self, batch: Sequence[Emission]) -> None:
        for user, seq, at in batch:
            tick = self._tick(seq=seq, at=at, pad=self._pads[user is None])
            if user is None:
                announce(tick, topic=TOPIC)
            else:
                emit(user, OPERATION, tick)

    def emit(self, emission: Emission) -> None:
        user, seq, at = emission
        self._waiting.append(emit(user or "", OPERATION, self._tick(seq=seq, at=at, pad=self._pads[False])))

    def wait(self, outstanding: int) -> None:
        while len(self._waiting) > outstanding:
            receipt = self._waiting.popleft()
            while receipt.status == "waiting":
                time.sleep(_POLL)
            if receipt.status != "published":
                raise RuntimeError(f"cannot publish an event: {receipt}, {receipt.reason}")


def bus_of(tick: Callable[..., Event]) -> Callable[[str], _Bus]:
    """Return a function that creates publisher and emitter of one event class for a Redis URL."""
    return partial(_Bus, tick)


def _command(launch: Launch) -> Command:
    env = {
        "EVENTBUS_REDIS_URL": launch.redis_url,
        "WEBUI_JWT_SECRET": SECRET,
        "WEBUI_AUTHORISER": "bench.contenders.allow_all:may_read",
        "WEBUI_MAX_TOTAL_CONNECTIONS": str(launch.connections + 100),
        "WEBUI_MAX_CONNECTIONS_PER_ADDRESS": str(launch.connections + 100),
        "WEBUI_ADDRESS_OPEN_BURST": str(launch.connections + 100),
        "WEBUI_ADDRESS_OPEN_RATE": str(launch.connections + 100),
    }
    return Command([sys.executable, "-m", "webui_adapter", "--port", str(launch.port)], env)


OURS = Contender(
    name="ours",
    title="ours",
    dialect="eventbus",
    path="/eventbus/ws",
    command=_command,
    publisher=bus_of(Tick),
    emitter=bus_of(Tick),
    ready_path="/readyz",
)
