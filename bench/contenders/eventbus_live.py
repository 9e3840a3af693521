"""The product again, with events that are not kept: no log, for the curves that show what the log costs."""

from __future__ import annotations

from dataclasses import replace

from bench.contenders.eventbus import OURS, bus_of
from eventbus import Event

__all__ = ["OURS_LIVE"]


class LiveTick(Event, name="bench.live", keep="nothing"):
    """As a Tick, but live only."""

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
