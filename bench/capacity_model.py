"""How many gateways and which Redis a load needs: arithmetic over measured costs, nothing measured here.

A gateway pays for each time it wakes, for each event that it reads, for each write to a socket and each frame in it,
and for each connection by the second. Redis pays for waking and for each event, and for each gateway that gets a copy
of it. Workers send a stream of events in batches, some milliseconds apart, so nobody wakes more often than that, and
events of one batch for one socket share a write. A write is dearer where a gateway has more connections than the cache
of the processor has room for. `python -m bench.sizing` fills it with the figures of a run of `bench.curves` and holds
it against them.
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
    "Load",
    "Sizing",
    "gateway_cores",
    "gateways_reached",
    "redis_cores",
    "size_for",
]

_KB: Final = 1_000
WAKES: Final = 200.0  # a second: batches of one worker process come at least 5 ms apart
CACHED_CONNECTIONS: Final = 2_000  # connections of a gateway whose sockets are in a cache when their turn comes
_MAX_GATEWAYS: Final = 100_000


class Infeasible(ValueError):
    """No number of gateways is enough: what each of them has to read is too much for one."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What things cost, in microseconds of CPU time; events of 235 bytes, kept in the log.

    Attributes:
        write: of one or more frames to a socket that is in a cache.
        cold: more of it if it is in none.
        frame: a delivery in such a write.
        frame_kb: more of it for each further 1,000 bytes.
        wake: a batch of events, to a gateway that slept.
        event: an event, to a gateway that reads it.
        event_kb: more of it for each further 1,000 bytes.
        connection: an idle connection, for a second.
        opening: a connection that comes: handshake, token, history.
        redis_wake: a batch, to a Redis that slept.
        redis_send: a batch's write to one gateway.
        redis_event: an event, to Redis, without copies.
        redis_copy: a copy of it to one gateway, in such a write.
        redis_kb: more of an event and its copy for each further 1,000 bytes, with one copy.
        memory_kb: of a gateway, for an idle connection, in KB.
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
class Load:
    """What is asked. `receivers`: connections that one event goes to. `events` are a second's."""

    connections: int
    events: float
    receivers: float
    event_bytes: int = DEFAULT_EVENT_BYTES

    @property
    def deliveries(self) -> float:
        """A second's."""
        return self.events * self.receivers

    @property
    def further_kb(self) -> float:
        """What an event has above the usual size, in 1,000 bytes."""
        return max(0.0, (self.event_bytes - DEFAULT_EVENT_BYTES) / _KB)


@dataclass(frozen=True, slots=True)
class Limits:
    """How full things may be.

    Attributes:
        gateway_busy: share of a core in ordinary times; the rest is for those who come back all at once.
        redis_busy: the same of a Redis process.
        connections: of one gateway: its descriptors, and how many people one crash may bother.
        reconnect_s: seconds within which all connections of the site are open again after a cut.
    """

    gateway_busy: float = 0.5
    redis_busy: float = 0.6
    connections: int = 50_000
    reconnect_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Sizing:
    """What is needed.

    Attributes:
        gateways: processes, a core each.
        bound: what asks for that many: `connections`, `return` or `cpu`.
        gateway_busy: share of a core, of each.
        gateway_mb: memory that the connections of each take.
        copies: gateways that an event reaches.
        redis_busy: cores that Redis needs in all.
        masters: Redis processes that take writes.
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
        """Of Redis, in words."""
        return "one Redis" if self.masters == 1 else f"a cluster of {self.masters} masters, sharded pub/sub"


def gateways_reached(receivers: float, gateways: int) -> float:
    """Gateways that have at least one of the receivers, which are spread by chance."""
    missed: float = (1.0 - 1.0 / gateways) ** receivers
    return gateways * (1.0 - missed)


def gateway_cores(costs: Costs, load: Load, gateways: int) -> float:
    """Cores that each of the gateways uses."""
    read = load.events * gateways_reached(load.receivers, gateways) / gateways
    reading = min(read, WAKES) * costs.wake + read * (costs.event + load.further_kb * costs.event_kb)
    connections, deliveries = load.connections / gateways, load.deliveries / gateways
    writes = min(deliveries, connections * WAKES)
    cold = max(0.0, 1.0 - CACHED_CONNECTIONS / connections)
    writing = writes * (costs.write + cold * costs.cold)
    framing = deliveries * (costs.frame + load.further_kb * costs.frame_kb)
    return (reading + writing + framing + connections * costs.connection) / 1e6


def redis_cores(costs: Costs, load: Load, gateways: int) -> float:
    """Cores that Redis uses in all."""
    copies = gateways_reached(load.receivers, gateways)
    each = costs.redis_event + copies * costs.redis_copy + load.further_kb * costs.redis_kb
    waking = min(load.events, WAKES) * (costs.redis_wake + copies * costs.redis_send)
    return (waking + load.events * each) / 1e6


def _for_cpu(costs: Costs, load: Load, busy: float) -> int:
    """The fewest gateways of which none is busier than that. Raises Infeasible."""
    low, high = 0, 1
    while gateway_cores(costs, load, high) > busy:
        low, high = high, high * 2
        if high > _MAX_GATEWAYS:
            raise Infeasible(f"{load.events:,.0f} events/s to {load.receivers:,.0f} each are too many to be read")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if gateway_cores(costs, load, middle) > busy else (low, middle)
    return high


def size_for(costs: Costs, load: Load, limits: Limits | None = None) -> Sizing:
    """The fewest gateways and masters that keep within the limits. Raises Infeasible."""
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
