"""The leases of running tasks: whose worker is gone is told so. Done by the instance that sweeps."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

from eventbus.clock import Clock
from eventbus.errors import Refused
from eventbus.operations.store import LeaseStore
from webui_adapter.maintenance.grace_period import GracePeriod

__all__ = ["LeaseChecker"]

log = logging.getLogger(__name__)

_AT_ONCE = 100
_SIDE_BY_SIDE = 4  # connections are history's, too
_ROUNDS = 20  # in a turn: the letters have theirs, too
# Workers renew about three times in a lease: with Redis away for less than a third of one they miss none they need.
_MISSED = 3


class LeaseChecker:
    """Looks at what is due. Two instances at the same time do no harm: each look is one step in Redis.

    ``grace`` and ``interval`` (between two turns) are seconds.
    """

    def __init__(
        self, operations: LeaseStore, clock: Clock, grace: float, interval: float, counters: Counter[str]
    ) -> None:
        self._operations = operations
        self._clock = clock
        self._counters = counters
        self._grace = GracePeriod(grace, max(grace / _MISSED, 2 * interval))

    def redis_reached(self) -> None:
        """Redis has answered, and takes writes."""
        self._grace.redis_reached(self._clock.wall())

    async def run_once(self) -> None:
        """One round. Raises Unavailable or Refused."""
        if not self._grace.is_over(self._clock.wall()):
            return
        before = self._counters["lost.tasks"]
        try:
            await self._look_at_all()
        finally:
            taken = self._counters["lost.tasks"] - before
            if taken:
                # One line: a rack that goes has thousands.
                log.warning("%d tasks have lost their worker", taken)

    async def _look_at_all(self) -> None:
        for _ in range(_ROUNDS):
            due = await self._operations.due(_AT_ONCE)
            for start in range(0, len(due), _SIDE_BY_SIDE):
                await asyncio.gather(*map(self._look, due[start : start + _SIDE_BY_SIDE]))
            if len(due) < _AT_ONCE:
                return

    async def _look(self, member: str) -> None:
        try:
            found = await self._operations.expire_leases(member)
        except Refused as error:
            # It is looked at again when its claim is over, and stands in nobody's way until then.
            log.warning("the leases of %s cannot be looked at: %s", member, error)
            return
        if found.expired:
            self._counters["lost.tasks"] += found.expired
            log.info("%d tasks of %s have lost their worker", found.expired, member)
        self._counters["lost.operations"] += found.lost
