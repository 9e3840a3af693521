"""What is measured, and for how long."""

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
        name: in results.
        title: in tables.
        direct: each event goes to one user, one after the other; else to everybody.
        rate: events/s; 0: flat out.
        window: flat out, the most events that may be outstanding.
        floor: the floor that it is compared with: a contender and the name of its case.
        stretch: measured for so many times the plan's seconds, where there are few events.
    """

    name: str
    title: str
    direct: bool
    rate: float
    window: int
    floor: tuple[str, str]
    stretch: float = 1.0

    def receivers(self, connections: int) -> int:
        """Deliveries that one event makes."""
        return 1 if self.direct else connections


_LONE: Final = ("floor-plain", "lone")
# Paced writes to one connection here and there have a floor of their own, but it holds the wake-ups of the floor's
# clock. So the direct cases, too, are held against the frames of a calm fan-out.
_PLAIN: Final = ("floor-plain", "fanout-calm")
_COALESCED: Final = ("floor-coalesced", "fanout-flat")

CASES: Final = (
    Case("fanout-calm", "fan-out, 100 events/s to everybody", direct=False, rate=100, window=0, floor=_PLAIN),
    Case("fanout-flat", "fan-out, flat out", direct=False, rate=0, window=64, floor=_COALESCED),
    Case("direct-calm", "direct, 8,000 events/s, one user each", direct=True, rate=8000, window=0, floor=_PLAIN),
    Case("direct-flat", "direct, flat out", direct=True, rate=0, window=4096, floor=_PLAIN),
    Case("lone", "alone, 100 events/s, one user each", direct=True, rate=100, window=0, floor=_LONE, stretch=4.0),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how often. All times in seconds.

    Attributes:
        cases: what is measured, besides the emits.
        connections: WebSockets, and users.
        rounds: how often each contender has its turn.
        warm: of a load before it is measured.
        seconds: for which it is measured.
        drain: how long the last events may take before the contender counts as fallen behind.
        settle: between the last connection and the look at the memory.
        emits: events of the emit measurement; 0: none.
        gateways: server processes; the connections are dealt out over them in turn.
        event_bytes: of an event as JSON.
        collections: channels that each connection watches besides its own, alone; nothing is published there.
        idle: seconds without any load after the opening, to see what mere connections cost; 0: not looked at.
        env: added to the environment of each server.
        tries: how often a case is measured if others use the machine; the least_disturbed counts.
        patience: for others to be done, before a try.
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
