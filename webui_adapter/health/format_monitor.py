"""Notes data in Redis that a newer version wrote, and makes the gateway not ready as long as it meets such data."""

from __future__ import annotations

import asyncio
import logging

from eventbus.protocol.formats import FORMAT
from webui_adapter.context import GatewayContext
from webui_adapter.health.status import Degradation, HealthStatus

__all__ = ["FormatMonitor"]

log = logging.getLogger(__name__)


class FormatMonitor:
    """Reports newer formats for one gateway."""

    def __init__(self, context: GatewayContext, health: HealthStatus) -> None:
        """Begin without a newer format.

        Args:
            context: The gateway's clock, counters and background tasks.
            health: Receives the reason why the gateway is not ready.
        """
        self._clock = context.clock
        self._counters = context.counters
        self._quiet = context.settings.newer_format_window
        self._spawn = context.spawn
        self._health = health
        self._last = 0.0

    def met(self, channel: str, found: int) -> None:
        """Note data of a newer format.

        Args:
            channel: The channel that has it.
            found: The format.
        """
        self._counters["format.newer"] += 1
        self._last = self._clock.now()
        if Degradation.NEWER_FORMAT in self._health:
            return
        reason = f"workers write format {found}, and this gateway reads up to format {FORMAT}: upgrade this gateway"
        log.error(
            "cannot read channel %s: %s; upgrade gateways before workers; pages of the channel get bus.gap",
            channel,
            reason,
        )
        self._health.begin(Degradation.NEWER_FORMAT, reason)
        self._spawn(self._end_when_quiet())

    async def _end_when_quiet(self) -> None:
        left = self._quiet
        while left > 0:
            await asyncio.sleep(left)
            left = self._last + self._quiet - self._clock.now()
        log.info("no data of a newer format in the last %g s", self._quiet)
        self._health.end(Degradation.NEWER_FORMAT)
