"""The cases of the benchmark and their durations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from bench.contenders.contract import DEFAULT_EVENT_BYTES

__all__ = ["CASES", "FULL", "QUICK", "Case", "Plan"]


@dataclass(frozen=True, slots=True)
class Case:
    """One load.

    Attributes:
        name: the name in results.
        title: the name in tables.
        direct: each event goes to one user, in turn; otherwise to all users.
        rate: events/s; 0: as fast as possible ("flat out").
        window: flat out, the largest number of outstanding events.
        floor: the contender and the case of the floor to compare with.
        stretch: factor for the plan's seconds, if there are few events.
    """

    name: str
    title: str
    direct: bool
    rate: float
    window: int
    floor: tuple[str, str]
    stretch: float = 1.0

    def receivers(self, connections: int) -> int:
        """Return the number of deliveries per event."""
        return 1 if self.direct else connections


_LONE: Final = ("floor-plain", "lone")
# A floor for paced writes to single connections would include the timer wake-ups of the floor program. The direct cases
# are therefore compared with the frames of a calm fan-out.
_PLAIN: Final = ("floor-plain", "fanout-calm")
_COALESCED: Final = ("floor-coalesced", "fanout-flat")

CASES: Final = (
    Case("fanout-calm", "fan-out, 100 events/s to all users", direct=False, rate=100, window=0, floor=_PLAIN),
    Case("fanout-flat", "fan-out, flat out", direct=False, rate=0, window=64, floor=_COALESCED),
    Case("direct-calm", "direct, 8,000 events/s, one user each", direct=True, rate=8000, window=0, floor=_PLAIN),
    Case("direct-flat", "direct, flat out", direct=True, rate=0, window=4096, floor=_PLAIN),
    Case(
        "lone", "idle machine, 100 events/s, one user each", direct=True, rate=100, window=0, floor=_LONE, stretch=4.0
    ),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a run. All times are in seconds.

    Attributes:
        cases: the cases to measure, in addition to the emits.
        connections: number of WebSocket connections and users.
        rounds: number of measurements of each contender.
        warm: duration of a load before the measurement.
        seconds: duration of the measurement.
        drain: time limit for the last events. A slower contender has fallen behind.
        settle: pause between the last connection and the reading of the memory.
        emits: events of the emit measurement; 0: none.
        gateways: number of server processes; they share the connections.
        event_bytes: size of an event as JSON.
        collections: additional channels per connection, without publications and other subscribers.
        idle: duration without load after the opening, to measure idle connections; 0: none.
        env: added to the environment of each server.
        tries: attempts of a case if other processes use the machine; the least disturbed counts.
        patience: time limit to wait for an idle machine before an attempt.
    """

    cases: tuple[Case, ...]
    connections: int
    rounds: int
    warm: float
    seconds: float
    drain: float
    settle: float
    emits: int
    gateways: int = 1
    event_bytes: int = DEFAULT_EVENT_BYTES
    collections: int = 0
    idle: float = 0.0
    env: Mapping[str, str] = field(default_factory=dict)
    tries: int = 3
    patience: float = 10.0


QUICK: Final = Plan(CASES, connections=1000, rounds=2, warm=0.5, seconds=2.0, drain=1.5, settle=0.5, emits=20_000)
FULL: Final = Plan(CASES, connections=1000, rounds=5, warm=2.0, seconds=8.0, drain=3.0, settle=2.0, emits=100_000)
