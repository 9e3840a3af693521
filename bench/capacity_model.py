"""The capacity model: calculates gateways and Redis masters for a load from measured costs. It measures nothing.

The costs of a gateway are: each wake-up, each event it reads, each write to a socket, each frame in a write, and each
connection per second. The costs of Redis are: each wake-up, each event, and each copy to a gateway. Workers send events
in batches some milliseconds apart, which bounds the number of wake-ups. The events of one batch to one socket share a
write. A write costs more if the sockets of a gateway do not fit into the cache of the processor. `python -m
bench.sizing` takes the costs from a run of `bench.curves` and compares the model with its points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from bench.contenders.contract import DEFAULT_EVENT_BYTES

__all__ = [
    "CACHED_CONNECTIONS",
    "WAKES",
    "Costs",
    "Infeasible",
    "Limits",
    "Sizing",
    "Workload",
    "gateway_cores",
    "gateways_reached",
    "redis_cores",
    "size_for",
]

_KB: Final = 1_000
WAKES: Final = 200.0  # per second: the batches of a worker process are at least 5 ms apart
CACHED_CONNECTIONS: Final = 2_000  # connections of a gateway whose sockets fit into the processor cache
_MAX_GATEWAYS: Final = 100_000


class Infeasible(ValueError):
    """No number of gateways is enough, because each would have to read too many events."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs in microseconds of CPU time, for events of 235 bytes that the log keeps.

    Attributes:
        write: a write to a socket that is in the processor cache.
        cold: additional cost of a write to a socket that is not in the cache.
        frame: a delivery within a write.
        frame_kb: additional cost of a delivery per further 1,000 bytes.
        wake: the wake-up of a gateway for a batch of events.
        event: an event that a gateway reads.
        event_kb: additional cost of an event per further 1,000 bytes.
        connection: an idle connection per second.
        opening: opening a connection: handshake, token, history.
        redis_wake: the wake-up of Redis for a batch.
        redis_send: the write of a batch to one gateway.
        redis_event: an event in Redis, without copies.
        redis_copy: a copy of an event to one gateway.
        redis_kb: additional cost of an event with one copy per further 1,000 bytes.
        memory_kb: memory of a gateway per idle connection, in KB.
    """

    write: float
    cold: float
    frame: float
    frame_kb: float
    wake: float
    event: float
    event_kb: float
    connection: float
    opening: float
    redis_wake: float
    redis_send: float
    redis_event: float
    redis_copy: float
    redis_kb: float
    memory_kb: float


@dataclass(frozen=True, slots=True)
class Workload:
    """A load. `events` are per second; each goes to `receivers` connections."""

    connections: int
    events: float
    receivers: float
    event_bytes: int = DEFAULT_EVENT_BYTES

    @property
    def deliveries(self) -> float:
        """Deliveries per second."""
        return self.events * self.receivers

    @property
    def further_kb(self) -> float:
        """The size of an event above the default, in units of 1,000 bytes."""
        return max(0.0, (self.event_bytes - DEFAULT_EVENT_BYTES) / _KB)


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper limits of the utilisation.

    Attributes:
        gateway_busy: fraction of a core that a gateway uses. The rest is for clients that reconnect together.
        redis_busy: fraction of a core that a Redis process uses.
        connections: connections of one gateway. It bounds descriptors and the users of one crash.
        reconnect_s: seconds until all connections are open again after a disconnect.
    """

    gateway_busy: float = 0.5
    redis_busy: float = 0.6
    connections: int = 50_000
    reconnect_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Sizing:
    """The required processes.

    Attributes:
        gateways: gateway processes, one core each.
        bound: the limit that requires this number: `connections`, `reconnect` or `cpu`.
        gateway_busy: fraction of a core that each gateway uses.
        gateway_mb: memory of each gateway for its connections, in MB.
        copies: gateways that receive an event.
        redis_busy: cores that all Redis processes use together.
        masters: Redis masters.
    """

    gateways: int
    bound: str
    gateway_busy: float
    gateway_mb: float
    copies: float
    redis_busy: float
    masters: int

    @property
    def topology(self) -> str:
        """A description of the Redis topology."""
        return "one Redis" if self.masters == 1 else f"{self.masters} installations, each with its own Redis"


def gateways_reached(receivers: float, gateways: int) -> float:
    """Return the gateways with at least one of the receivers, if these are distributed randomly."""
    missed: float = (1.0 - 1.0 / gateways) ** receivers
    return gateways * (1.0 - missed)


def gateway_cores(costs: Costs, load: Workload, gateways: int) -> float:
    """Return the cores that each gateway uses."""
    read = load.events * gateways_reached(load.receivers, gateways) / gateways
    reading = min(read, WAKES) * costs.wake + read * (costs.event + load.further_kb * costs.event_kb)
    connections, deliveries = load.connections / gateways, load.deliveries / gateways
    writes = min(deliveries, connections * WAKES)
    cold = max(0.0, 1.0 - CACHED_CONNECTIONS / connections)
    writing = writes * (costs.write + cold * costs.cold)
    framing = deliveries * (costs.frame + load.further_kb * costs.frame_kb)
    return (reading + writing + framing + connections * costs.connection) / 1e6


def redis_cores(costs: Costs, load: Workload, gateways: int) -> float:
    """Return the cores that all Redis processes use together."""
    copies = gateways_reached(load.receivers, gateways)
    each = costs.redis_event + copies * costs.redis_copy + load.further_kb * costs.redis_kb
    waking = min(load.events, WAKES) * (costs.redis_wake + copies * costs.redis_send)
    return (waking + load.events * each) / 1e6


def _for_cpu(costs: Costs, load: Workload, busy: float) -> int:
    """Return the smallest number of gateways that stay below the limit. Raises Infeasible."""
    low, high = 0, 1
    while gateway_cores(costs, load, high) > busy:
        low, high = high, high * 2
        if high > _MAX_GATEWAYS:
            raise Infeasible(
                f"no number of gateways can read {load.events:,.0f} events/s to {load.receivers:,.0f} receivers each"
            )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if gateway_cores(costs, load, middle) > busy else (low, middle)
    return high


def size_for(costs: Costs, load: Workload, limits: Limits | None = None) -> Sizing:
    """Return the smallest numbers of gateways and masters within the limits. Raises Infeasible."""
    limits = limits or Limits()
    spare = limits.reconnect_s * (1.0 - limits.gateway_busy)
    required = {
        "connections": math.ceil(load.connections / limits.connections),
        "reconnect": math.ceil(load.connections * costs.opening / 1e6 / spare),
        "cpu": _for_cpu(costs, load, limits.gateway_busy),
    }
    bound = max(required, key=lambda name: required[name])
    gateways = max(1, required[bound])
    redis = redis_cores(costs, load, gateways)
    return Sizing(
        gateways=gateways,
        bound=bound,
        gateway_busy=gateway_cores(costs, load, gateways),
        gateway_mb=load.connections / gateways * costs.memory_kb / 1024,
        copies=gateways_reached(load.receivers, gateways),
        redis_busy=redis,
        masters=max(1, math.ceil(redis / limits.redis_busy)),
    )
