"""The leases of running tasks: a task whose lease has expired has lost its worker. The sweeping instance checks."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

from eventbus.errors import Refused
from eventbus.operations.store import LeaseStore
from webui_adapter.maintenance.grace_period import GracePeriod

__all__ = ["LeaseChecker"]

log = logging.getLogger(__name__)

_BATCH = 100
_CONCURRENCY = 4  # readings of histories need connections as well
_BATCHES = 20  # per round: the pending events need their share of the sweeper's time
# Workers renew every lease/3 seconds. A shorter outage cannot cost a worker its lease: the grace period goes on.
_RENEWALS = 3


class LeaseChecker:
    """Checks leases that are due. Two instances may do it at the same time: each check is one step in Redis."""

    def __init__(self, operations: LeaseStore, grace: float, interval: float, counters: Counter[str]) -> None:
        """Begin in the grace period.

        Args:
            operations: The leases.
            grace: Seconds for which Redis must be reachable before a lease counts as expired.
            interval: Seconds between two rounds.
            counters: Receives ``lost.tasks`` and ``lost.operations``.
        """
        self._operations = operations
        self._now = 0.0
        self._counters = counters
        self._grace = GracePeriod(grace, max(grace / _RENEWALS, 2 * interval))

    async def redis_reached(self) -> None:
        """Note that Redis has answered and accepts writes."""
        self._now = await self._operations.server_ms() / 1000
        self._grace.redis_reached(self._now)

    async def run_once(self) -> None:
        """Do one round, unless the grace period lasts.

        Raises:
            Unavailable: Redis cannot be reached.
            Refused: Redis refuses a command.
        """
        if not self._grace.is_over(self._now):
            return
        before = self._counters["lost.tasks"]
        try:
            await self._check_due()
        finally:
            taken = self._counters["lost.tasks"] - before
            if taken:
                # One line: a failed rack loses thousands.
                log.warning("%d tasks have lost their worker", taken)

    async def _check_due(self) -> None:
        for _ in range(_BATCHES):
            due = await self._operations.due(_BATCH)
            for start in range(0, len(due), _CONCURRENCY):
                await asyncio.gather(*map(self._check, due[start : start + _CONCURRENCY]))
            if len(due) < _BATCH:
                return

    async def _check(self, member: str) -> None:
        try:
            found = await self._operations.expire_leases(member)
        except Refused as error:
            # It is checked again when its claim expires, and does not delay others until then.
            log.warning("cannot check the leases of %s: %s", member, error)
            return
        if found.expired:
            self._counters["lost.tasks"] += found.expired
            log.info("%d tasks of %s have lost their worker", found.expired, member)
        self._counters["lost.operations"] += found.lost
