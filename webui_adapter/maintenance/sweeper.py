"""The sweeper: it moves pending events that have expired to the dead letters, and checks the leases of running tasks.

Every gateway runs one. The one that holds the sweeper's lease works.
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

_BATCH = 100


class Sweeper:
    """The sweeper of one gateway.

    Attributes:
        totals: Counts over all users, as last read; None before.
        sweeping: This instance holds the lease.
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
        """Begin without the lease.

        Args:
            pending_store: The pending events.
            instance: The name of this gateway.
            interval: Seconds between two rounds.
            lease: Seconds for which the lease is held.
            counters: Receives ``dead.expired`` and ``dead.released``.
            leases: Checks the leases of running tasks; None where there are none.
        """
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
                log.info("cannot sweep: %s", error)
            except Exception:
                # A sweeper that has ended would keep the lease, and no expired event would be moved.
                self.sweeping = False
                log.exception("cannot sweep")
            await asyncio.sleep(self._interval)

    async def run_once(self) -> None:
        """Do one round.

        Raises:
            Unavailable: Redis cannot be reached.
            Refused: Redis refuses a command.
        """
        fencing_token = await self._pending_store.lease(self._instance, self._lease)
        self.sweeping = fencing_token is not None
        if self._leases is not None:
            # Also while another instance sweeps. The next holder must know since when workers could renew.
            await self._leases.redis_reached()
            if self.sweeping:
                await self._leases.run_once()
        if fencing_token is not None:
            await self._sweep(fencing_token)
        self.totals = await self._pending_store.totals()

    async def _sweep(self, fencing_token: int) -> None:
        for channel in await self._pending_store.due(_BATCH):
            swept = await self._pending_store.sweep(channel, fencing_token)
            if swept.fenced:
                self.sweeping = False
                return
            self._counters["dead.expired"] += swept.dead_lettered
            self._counters["dead.released"] += swept.released
            if swept.dead_lettered:
                log.warning("moved %d events of %s to the dead letters: they expired", swept.dead_lettered, channel)
