"""The model's costs from the figures of `bench.curves`, and what it says of all the other points. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from bench.capacity_model import WAKES, WARM, Costs, Load, gateway_cores, redis_cores
from bench.curves.results import Findings

__all__ = ["Check", "calibrate", "checks"]

_EVERYBODY: Final = "to everybody, 50,000 deliveries/s"
_SINGLE: Final = "to one each, 4,000/s"
_AT: Final = 1_000.0  # connections
_USUAL_HEARTBEAT_S: Final = 30.0
_SPREAD_DELIVERIES: Final = 50_000
_SINGLE_EVENTS: Final = 4_000
_FLOOD: Final = 1_000_000.0  # deliveries/s at which events of one batch share their writes
_COPY_US: Final = 0.4  # `python -m bench.costs`; the curves have too few gateways to show it


class Check(NamedTuple):
    """A measured point beside what the model says of it; `used` if the model was made from it."""

    what: str
    x: float
    figure: str
    measured: float
    said: float
    used: bool

    @property
    def ratio(self) -> float:
        """What is said over what was measured."""
        return self.said / self.measured


def _ends(findings: Findings, sweep: str, line: str, figure: str) -> tuple[float, float]:
    """A line as its first value and its slope from the first point to the last."""
    points = findings.lines(sweep, figure)[line]
    first, last = min(points), max(points)
    low, high = points[first].median, points[last].median
    return low, (high - low) / (last - first)


def _split(findings: Findings, sweep: str, line: str, figure: str) -> tuple[float, float]:
    """A figure per event over events/s, as what an event costs, and what each of the batches of a second costs."""
    points = findings.lines(sweep, figure)[line]
    first, last = min(points), max(points)
    event = (points[last].median * last - points[first].median * first) / (last - first)
    return event, max(0.0, (points[first].median - event) * first) / WAKES


def _writing(findings: Findings, wake: float) -> tuple[float, float, float]:
    """A write, what it costs more when cold, and a frame: from calm events, a flood, and the most connections."""
    calm = findings.median("connections", _EVERYBODY, _AT, "cpu_us") - wake / _AT
    events = _FLOOD / _AT
    shared = WAKES / events
    flood = findings.median("rates", "to everybody", _FLOOD, "cpu_us") - shared * wake / _AT
    write = (calm - flood) / (1.0 - shared)
    most = max(findings.lines("connections", "cpu_us")[_EVERYBODY])
    cold = findings.median("connections", _EVERYBODY, most, "cpu_us") - calm
    return write, max(0.0, cold / (1.0 - WARM / most)), max(0.0, calm - write)


def calibrate(findings: Findings) -> Costs:
    """Costs from some points. Raises KeyError if one of them was not measured."""
    single, wake = _split(findings, "rates", "to one user each", "cpu_us")
    write, cold, frame = _writing(findings, wake)
    redis_event, redis_wake = _split(findings, "log", "with log", "redis_us")
    frame_kb = _ends(findings, "sizes", "to everybody", "cpu_us")[1] * 1_000
    single_kb = _ends(findings, "sizes", "to one user each", "cpu_us")[1] * 1_000
    send = max(0.0, _ends(findings, "gateways", "100 events/s to everybody", "redis_us")[1] - _COPY_US)
    crowd = max(findings.lines("memory", "memory_kb")["ours"])
    return Costs(
        write=write,
        cold=cold,
        frame=frame,
        frame_kb=frame_kb,
        wake=wake,
        event=max(0.0, single - write - frame),
        event_kb=max(0.0, single_kb - frame_kb),
        connection=findings.median("memory", "ours", crowd, "ping_us") / _USUAL_HEARTBEAT_S,
        opening=findings.median("memory", "ours", crowd, "open_cpu_ms") * 1_000,
        redis_wake=max(0.0, redis_wake - send),
        redis_send=send,
        redis_event=max(0.0, redis_event - _COPY_US),
        redis_copy=_COPY_US,
        redis_kb=_ends(findings, "sizes", "to one user each", "redis_us")[1] * 1_000,
        memory_kb=findings.median("memory", "ours", crowd, "memory_kb"),
    )


def _delivery(costs: Costs, load: Load, gateways: int = 1) -> float:
    """Gateways' CPU per delivery."""
    return gateway_cores(costs, load, gateways) * gateways / load.deliveries * 1e6


def checks(findings: Findings, costs: Costs) -> Iterator[Check]:
    """Every point of the curves that the model can say something of."""
    for x, cost in findings.lines("connections", "cpu_us")[_EVERYBODY].items():
        load = Load(int(x), _SPREAD_DELIVERIES / x, x)
        used = x in {_AT, max(findings.lines("connections", "cpu_us")[_EVERYBODY])}
        yield Check(_EVERYBODY, x, "gateway us/delivery", cost.median, _delivery(costs, load), used)
    for x, cost in findings.lines("connections", "cpu_us")[_SINGLE].items():
        load = Load(int(x), _SINGLE_EVENTS, 1)
        yield Check(_SINGLE, x, "gateway us/delivery", cost.median, _delivery(costs, load), used=False)
    yield from _rates(findings, costs)
    yield from _sizes(findings, costs)
    yield from _gateways(findings, costs)


def _rates(findings: Findings, costs: Costs) -> Iterator[Check]:
    connections = 1_000
    for line, receivers in (("to everybody", connections), ("to one user each", 1)):
        points = findings.lines("rates", "cpu_us")[line]
        for x, cost in points.items():
            load = Load(connections, x / receivers, receivers)
            used = x in ({min(points), max(points)} if receivers == 1 else {_FLOOD})
            yield Check(f"rates: {line}", x, "gateway us/delivery", cost.median, _delivery(costs, load), used)


def _sizes(findings: Findings, costs: Costs) -> Iterator[Check]:
    connections = 500
    for line, receivers in (("to everybody", connections), ("to one user each", 1)):
        points = findings.lines("sizes", "cpu_us")[line]
        for x, cost in points.items():
            events = min(100.0, 60e6 / x / connections) if receivers > 1 else min(2_000.0, 60e6 / x)
            load = Load(connections, events, receivers, int(x))
            used = x in {min(points), max(points)}
            yield Check(f"sizes: {line}", x, "gateway us/delivery", cost.median, _delivery(costs, load), used)


def _gateways(findings: Findings, costs: Costs) -> Iterator[Check]:
    connections = 1_000
    for line, events, receivers in (
        ("100 events/s to everybody", 100, connections),
        ("4,000/s to one each", 4_000, 1),
    ):
        for x, cost in findings.lines("gateways", "cpu_us")[line].items():
            load = Load(connections, events, receivers)
            said = _delivery(costs, load, int(x))
            yield Check(f"gateways: {line}", x, "gateway us/delivery", cost.median, said, used=False)
    for x, cost in findings.lines("gateways", "redis_us")["4,000/s to one each"].items():
        said = redis_cores(costs, Load(connections, 4_000, 1), int(x)) / 4_000 * 1e6
        yield Check("gateways: 4,000/s to one each", x, "Redis us/event", cost.median, said, used=False)
