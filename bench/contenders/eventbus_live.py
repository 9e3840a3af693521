"""The event bus with events that the log does not keep, for the curve of the cost of the log."""

from __future__ import annotations

from dataclasses import replace

from bench.contenders.eventbus import OURS, bus_of
from eventbus import Event

__all__ = ["OURS_LIVE"]


class LiveTick(Event, name="bench.live", keep="nothing"):
    """A Tick that the log does not keep."""

    seq: int
    at: int
    pad: str


OURS_LIVE = replace(
    OURS,
    name="ours-live",
    title="ours, without the log",
    publisher=bus_of(LiveTick),
    emitter=bus_of(LiveTick),
)
