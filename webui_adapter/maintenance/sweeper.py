"""The sweeper: gives up on what was owed for too long, and on workers that have not renewed their leases.

One instance of all holds the sweeper's own lease, whatever their number.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

from eventbus.backends.pending import SweepStore, Totals
from eventbus.errors import TransportError
from webui_adapter.maintenance.lease_checker import LeaseChecker

__all__ = ["Sweeper"]

log = logging.getLogger(__name__)

_AT_ONCE = 100


class Sweeper:
    """Runs in every gateway, works in one.

    Attributes:
        totals: over all users, as last seen; None before.
        sweeping: whether this instance holds the lease.
    """

    def __init__(
        self,
        pending_store: SweepStore,
        instance: str,
        interval: float,
        lease: float,
        counters: Counter[str],
        leases: LeaseChecker | None = None,
    ) -> None:
        self._pending_store = pending_store
        self._instance = instance
        self._interval = interval
        self._lease = lease
        self._counters = counters
        self._leases = leases
        self.totals: Totals | None = None
        self.sweeping = False

    async def run(self) -> None:
        """Sweep as long as the gateway lives."""
        while True:
            try:
                await self.run_once()
            except TransportError as error:
                self.sweeping = False
                log.info("no sweep: %s", error)
            except Exception:
                # A sweeper that has ended would leave its lease to itself, and everybody's letters lying.
                self.sweeping = False
                log.exception("the sweep failed")
            await asyncio.sleep(self._interval)

    async def run_once(self) -> None:
        """One round. Raises Unavailable or Refused."""
        fence = await self._pending_store.lease(self._instance, self._lease)
        self.sweeping = fence is not None
        if self._leases is not None:
            # Also while another instance sweeps: whoever takes over has to know since when workers could renew.
            self._leases.redis_reached()
            if self.sweeping:
                await self._leases.run_once()
        if fence is not None:
            await self._sweep(fence)
        self.totals = await self._pending_store.totals()

    async def _sweep(self, fence: int) -> None:
        for channel in await self._pending_store.due(_AT_ONCE):
            swept = await self._pending_store.sweep(channel, fence)
            if swept.fenced:
                self.sweeping = False
                return
            self._counters["dead.expired"] += swept.dead_lettered
            self._counters["dead.released"] += swept.released
            if swept.dead_lettered:
                log.warning("%d events of %s were given up on: their time was over", swept.dead_lettered, channel)
