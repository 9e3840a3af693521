"""Calculates the costs of the model from `bench.curves`, and its predictions for the other points. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from bench.capacity_model import CACHED_CONNECTIONS, WAKES, Costs, Workload, gateway_cores, redis_cores
from bench.curves.results import CurveResults

__all__ = ["Check", "calibrate", "checks"]

_BROADCAST: Final = "to everybody, 50,000 deliveries/s"
_DIRECT: Final = "to one each, 4,000/s"
_AT: Final = 1_000.0  # connections
_USUAL_HEARTBEAT_S: Final = 30.0
_SPREAD_DELIVERIES: Final = 50_000
_DIRECT_EVENTS: Final = 4_000
_SATURATION: Final = 1_000_000.0  # deliveries/s at which events of one batch share their writes
_COPY_US: Final = 0.4  # `python -m bench.costs`; the curves have too few gateways to show it


class Check(NamedTuple):
    """A measured point and its prediction. `used`: the costs were calculated from this point."""

    load: str
    x: float
    figure: str
    measured: float
    predicted: float
    used: bool

    @property
    def ratio(self) -> float:
        """The prediction divided by the measurement."""
        return self.predicted / self.measured


def _ends(results: CurveResults, sweep: str, line: str, figure: str) -> tuple[float, float]:
    """Return the first value of a line and its slope from the first point to the last."""
    points = results.lines(sweep, figure)[line]
    first, last = min(points), max(points)
    low, high = points[first].median, points[last].median
    return low, (high - low) / (last - first)


def _split(results: CurveResults, sweep: str, line: str, figure: str) -> tuple[float, float]:
    """Split a figure per event into the cost of an event and the cost of a batch."""
    points = results.lines(sweep, figure)[line]
    first, last = min(points), max(points)
    event = (points[last].median * last - points[first].median * first) / (last - first)
    return event, max(0.0, (points[first].median - event) * first) / WAKES


def _writing(results: CurveResults, wake: float) -> tuple[float, float, float]:
    """Return the costs of a write, of a cold write in addition, and of a frame."""
    calm = results.median("connections", _BROADCAST, _AT, "cpu_us") - wake / _AT
    events = _SATURATION / _AT
    shared = WAKES / events
    flood = results.median("rates", "to everybody", _SATURATION, "cpu_us") - shared * wake / _AT
    write = (calm - flood) / (1.0 - shared)
    most = max(results.lines("connections", "cpu_us")[_BROADCAST])
    cold = results.median("connections", _BROADCAST, most, "cpu_us") - calm
    return write, max(0.0, cold / (1.0 - CACHED_CONNECTIONS / most)), max(0.0, calm - write)


def calibrate(results: CurveResults) -> Costs:
    """Calculate the costs. Raises KeyError if a required point was not measured."""
    single, wake = _split(results, "rates", "to one user each", "cpu_us")
    write, cold, frame = _writing(results, wake)
    redis_event, redis_wake = _split(results, "log", "with log", "redis_us")
    frame_kb = _ends(results, "sizes", "to everybody", "cpu_us")[1] * 1_000
    single_kb = _ends(results, "sizes", "to one user each", "cpu_us")[1] * 1_000
    send = max(0.0, _ends(results, "gateways", "100 events/s to everybody", "redis_us")[1] - _COPY_US)
    largest = max(results.lines("memory", "memory_kb")["ours"])
    return Costs(
        write=write,
        cold=cold,
        frame=frame,
        frame_kb=frame_kb,
        wake=wake,
        event=max(0.0, single - write - frame),
        event_kb=max(0.0, single_kb - frame_kb),
        connection=results.median("memory", "ours", largest, "ping_us") / _USUAL_HEARTBEAT_S,
        opening=results.median("memory", "ours", largest, "open_cpu_ms") * 1_000,
        redis_wake=max(0.0, redis_wake - send),
        redis_send=send,
        redis_event=max(0.0, redis_event - _COPY_US),
        redis_copy=_COPY_US,
        redis_kb=_ends(results, "sizes", "to one user each", "redis_us")[1] * 1_000,
        memory_kb=results.median("memory", "ours", largest, "memory_kb"),
    )


def _delivery(costs: Costs, load: Workload, gateways: int = 1) -> float:
    """Return the CPU time of all gateways per delivery, in microseconds."""
    return gateway_cores(costs, load, gateways) * gateways / load.deliveries * 1e6


def checks(results: CurveResults, costs: Costs) -> Iterator[Check]:
    """Compare all points of the curves that the model can predict."""
    for x, cost in results.lines("connections", "cpu_us")[_BROADCAST].items():
        load = Workload(int(x), _SPREAD_DELIVERIES / x, x)
        used = x in {_AT, max(results.lines("connections", "cpu_us")[_BROADCAST])}
        yield Check(_BROADCAST, x, "gateway us/delivery", cost.median, _delivery(costs, load), used)
    for x, cost in results.lines("connections", "cpu_us")[_DIRECT].items():
        load = Workload(int(x), _DIRECT_EVENTS, 1)
        yield Check(_DIRECT, x, "gateway us/delivery", cost.median, _delivery(costs, load), used=False)
    yield from _rates(results, costs)
    yield from _sizes(results, costs)
    yield from _gateways(results, costs)


def _rates(results: CurveResults, costs: Costs) -> Iterator[Check]:
    connections = 1_000
    for line, receivers in (("to everybody", connections), ("to one user each", 1)):
        points = results.lines("rates", "cpu_us")[line]
        for x, cost in points.items():
            load = Workload(connections, x / receivers, receivers)
            used = x in ({min(points), max(points)} if receivers == 1 else {_SATURATION})
            yield Check(f"rates: {line}", x, "gateway us/delivery", cost.median, _delivery(costs, load), used)


def _sizes(results: CurveResults, costs: Costs) -> Iterator[Check]:
    connections = 500
    for line, receivers in (("to everybody", connections), ("to one user each", 1)):
        points = results.lines("sizes", "cpu_us")[line]
        for x, cost in points.items():
            events = min(100.0, 60e6 / x / connections) if receivers > 1 else min(2_000.0, 60e6 / x)
            load = Workload(connections, events, receivers, int(x))
            used = x in {min(points), max(points)}
            yield Check(f"sizes: {line}", x, "gateway us/delivery", cost.median, _delivery(costs, load), used)


def _gateways(results: CurveResults, costs: Costs) -> Iterator[Check]:
    connections = 1_000
    for line, events, receivers in (
        ("100 events/s to everybody", 100, connections),
        ("4,000/s to one each", 4_000, 1),
    ):
        for x, cost in results.lines("gateways", "cpu_us")[line].items():
            load = Workload(connections, events, receivers)
            predicted = _delivery(costs, load, int(x))
            yield Check(f"gateways: {line}", x, "gateway us/delivery", cost.median, predicted, used=False)
    for x, cost in results.lines("gateways", "redis_us")["4,000/s to one each"].items():
        predicted = redis_cores(costs, Workload(connections, 4_000, 1), int(x)) / 4_000 * 1e6
        yield Check("gateways: 4,000/s to one each", x, "Redis us/event", cost.median, predicted, used=False)
