"""The floor: `load/floor.c`, which only writes prepared frames and publishes itself."""

from __future__ import annotations

from pathlib import Path

from bench.contenders.contract import Command, Contender, Launch

__all__ = ["COALESCED", "PLAIN"]

_BINARY = Path(__file__).parent.parent / "load" / "floor"


def _floor(launch: Launch, coalesce: int) -> Command:
    return Command(
        [
            str(_BINARY),
            "--port",
            str(launch.port),
            "--connections",
            str(launch.connections),
            "--progress",
            str(launch.progress),
            "--coalesce",
            str(coalesce),
            "--event-bytes",
            str(launch.event_bytes),
        ]
    )


PLAIN = Contender(
    name="floor-plain",
    title="floor in C, a frame a write",
    dialect="plain",
    path="/",
    command=lambda launch: _floor(launch, 1),
    publisher=None,
)
COALESCED = Contender(
    name="floor-coalesced",
    title="floor in C, ten frames a write",
    dialect="plain",
    path="/",
    command=lambda launch: _floor(launch, 10),
    publisher=None,
    cases=frozenset({"fanout-flat"}),
)
