"""The points of each curve."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bench.cases import Case, Plan

__all__ = ["FULL", "OPENING", "QUICK", "SWEEPS", "Scale", "ServerRun", "Sweep"]

OPENING: Final = "opening"
"""The name of the figures for opening the connections."""

_FLOOR: Final = ("floor-plain", "fanout-calm")  # not used here
_SPREAD_DELIVERIES: Final = 50_000  # deliveries/s of a broadcast load, equal for all numbers of connections
_DIRECT_EVENTS: Final = 4_000
_BYTES_A_SECOND: Final = 60_000_000  # upper limit for the loads of the curve over sizes
_HEARTBEAT_S: Final = 5


@dataclass(frozen=True, slots=True)
class ServerRun:
    """One set of servers with connections, for several loads in turn.

    Attributes:
        contender: the name of the contender.
        plan: connections, gateways and so on. Its cases are the loads.
        points: the line and the x value of each case, and of OPENING if it is part of the curve.
    """

    contender: str
    plan: Plan
    points: Mapping[str, tuple[str, float]]


@dataclass(frozen=True, slots=True)
class Scale:
    """The amount of measurement. `plan` has the durations; the tuples are the x values."""

    plan: Plan
    connections: tuple[int, ...]
    broadcasts: tuple[int, ...]
    directs: tuple[int, ...]
    sizes: tuple[int, ...]
    collections: tuple[int, ...]
    gateways: tuple[int, ...]
    log_rates: tuple[int, ...]
    idle_connections: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sweep:
    """One curve: all lines over one x axis.

    Attributes:
        name: the name on the command line and in file names.
        title: the title of the plot.
        axis: the label of the x axis.
        panels: the figures to plot, each with the title of its panel.
        runs: returns the measurements.
    """

    name: str
    title: str
    axis: str
    panels: tuple[tuple[str, str], ...]
    runs: Callable[[Scale], Sequence[ServerRun]]


_COST: Final = ("cpu_us", "gateway CPU, us per delivery")
_REDIS: Final = ("redis_us", "Redis CPU, us per event")
_P50: Final = ("p50_ms", "latency p50, ms")
_P99: Final = ("p99_ms", "latency p99, ms")


def _broadcast(rate: float) -> Case:
    return Case(f"everybody-{rate:g}", f"{rate:g} events/s to everybody", False, rate, 0, _FLOOR)


def _direct(rate: float) -> Case:
    return Case(f"direct-{rate:g}", f"{rate:g} events/s, one user each", True, rate, 0, _FLOOR)


def _connections(scale: Scale) -> list[ServerRun]:
    runs = []
    for contender, prefix in (("ours", ""), ("floor-plain", "floor in C, ")):
        for count in scale.connections:
            broadcast, direct = _broadcast(_SPREAD_DELIVERIES / count), _direct(_DIRECT_EVENTS)
            plan = replace(scale.plan, connections=count, cases=(broadcast, direct))
            points = {
                broadcast.name: (f"{prefix}to everybody, {_SPREAD_DELIVERIES:,} deliveries/s", count),
                direct.name: (f"{prefix}to one each, {_DIRECT_EVENTS:,}/s", count),
            }
            runs.append(ServerRun(contender, plan, points))
    return runs


def _rates(scale: Scale) -> list[ServerRun]:
    broadcast, directs = [_broadcast(rate) for rate in scale.broadcasts], [_direct(rate) for rate in scale.directs]
    count = scale.plan.connections
    points = {case.name: ("to everybody", case.rate * count) for case in broadcast}
    points |= {case.name: ("to one user each", case.rate) for case in directs}
    return [ServerRun("ours", replace(scale.plan, cases=(*directs, *broadcast)), points)]


def _sizes(scale: Scale) -> list[ServerRun]:
    runs = []
    for contender, prefix in (("ours", ""), ("floor-plain", "floor in C, ")):
        for size in scale.sizes:
            count = scale.plan.connections // 2
            broadcast = _broadcast(min(100.0, _BYTES_A_SECOND / size / count))
            direct = _direct(min(2_000.0, _BYTES_A_SECOND / size))
            plan = replace(scale.plan, connections=count, cases=(broadcast, direct), event_bytes=size)
            points = {
                broadcast.name: (f"{prefix}to everybody", size),
                direct.name: (f"{prefix}to one user each", size),
            }
            runs.append(ServerRun(contender, plan, points))
    return runs


def _channels(scale: Scale) -> list[ServerRun]:
    runs = []
    for each in scale.collections:
        plan = replace(scale.plan, collections=each, cases=(_broadcast(50), _direct(_DIRECT_EVENTS)))
        channels = plan.connections * (each + 1) + 1
        broadcast, direct = (case.name for case in plan.cases)
        points = {broadcast: ("50 events/s to everybody", channels), direct: ("4,000/s to one each", channels)}
        runs.append(ServerRun("ours", plan, {OPENING: ("all channels opened", channels), **points}))
    return runs


def _gateways(scale: Scale) -> list[ServerRun]:
    runs = []
    for count in scale.gateways:
        plan = replace(scale.plan, gateways=count, cases=(_broadcast(100), _direct(_DIRECT_EVENTS)))
        broadcast, direct = (case.name for case in plan.cases)
        points = {broadcast: ("100 events/s to everybody", count), direct: ("4,000/s to one each", count)}
        runs.append(ServerRun("ours", plan, points))
    return runs


def _log(scale: Scale) -> list[ServerRun]:
    runs = []
    for contender, kept in (("ours", "with log"), ("ours-live", "without")):
        cases = [_direct(rate) for rate in scale.log_rates]
        points: dict[str, tuple[str, float]] = {case.name: (kept, case.rate) for case in cases}
        runs.append(ServerRun(contender, replace(scale.plan, cases=tuple(cases)), points))
    return runs


def _memory(scale: Scale) -> list[ServerRun]:
    runs = []
    for count in scale.idle_connections:
        # Frequent pings make their cost measurable within seconds.
        plan = replace(
            scale.plan,
            connections=count,
            cases=(),
            idle=2.0 * _HEARTBEAT_S,
            env={"WEBUI_HEARTBEAT_INTERVAL": str(_HEARTBEAT_S)},
        )
        runs.append(ServerRun("ours", plan, {OPENING: ("ours", count)}))
    return runs


SWEEPS: Final = (
    Sweep("connections", "Cost and latency over connections", "connections", (_COST, _P50, _P99), _connections),
    Sweep("rates", "Cost and latency over load, 1,000 connections", "deliveries/s", (_COST, _P50, _P99), _rates),
    Sweep("sizes", "Cost and latency over event size, 500 connections", "bytes", (_COST, _P50, _P99), _sizes),
    Sweep(
        "channels",
        "Channels that a gateway subscribes to, 1,000 connections",
        "channels",
        (_COST, _P99, ("resident_mb", "resident, MB"), ("open_seconds", "time to open all, s")),
        _channels,
    ),
    Sweep("gateways", "Gateways on one Redis, 1,000 connections", "gateways", (_COST, _REDIS, _P99), _gateways),
    Sweep("log", "With and without the log, events to one user each", "events/s", (_REDIS, _COST, _P99), _log),
    Sweep(
        "memory",
        "Idle connections",
        "connections",
        (
            ("resident_mb", "resident, MB"),
            ("memory_kb", "KB per connection"),
            ("open_cpu_ms", "CPU to open one, ms"),
            ("ping_us", "CPU per ping, us"),
        ),
        _memory,
    ),
)

_TIMES: Final = Plan((), connections=1000, rounds=1, warm=0.5, seconds=2.0, drain=1.5, settle=0.5, emits=0)

QUICK: Final = Scale(
    _TIMES,
    connections=(100, 1_000, 5_000),
    broadcasts=(10, 100, 500),
    directs=(1_000, 8_000),
    sizes=(200, 4_000, 64_000),
    collections=(0, 10),
    gateways=(1, 2),
    log_rates=(1_000, 4_000),
    idle_connections=(1_000, 5_000),
)
FULL: Final = Scale(
    replace(_TIMES, rounds=2, warm=1.0, seconds=4.0, drain=2.0, settle=1.0, tries=2),
    connections=(100, 300, 1_000, 3_000, 10_000, 15_000),
    broadcasts=(10, 30, 100, 300, 1_000),
    directs=(300, 1_000, 3_000, 8_000, 16_000),
    sizes=(200, 1_000, 4_000, 16_000, 64_000),
    collections=(0, 3, 10, 30, 100),
    gateways=(1, 2, 4),
    log_rates=(300, 1_000, 3_000, 8_000, 16_000),
    idle_connections=(100, 1_000, 5_000, 10_000, 15_000),
)
