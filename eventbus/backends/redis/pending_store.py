"""Letters in Redis, from an event loop: what gateways do with the lists."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from eventbus.backends.dead_letters import DeathReason
from eventbus.backends.pending import PendingBatch, RedeliveryResult, Sweep, Totals
from eventbus.backends.redis.reader import RedisReader
from eventbus.backends.redis.scripts import pending
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.clock import now_ms
from eventbus.protocol.cursor import Position
from eventbus.settings import BusSettings

__all__ = ["RedisPendingStore"]

# What a connection is given of its user's lists at once; the rest follows as what is due again.
FETCH_BYTES = 1_048_576
# For how long a sweeper has a channel to itself; and how often each channel is looked at.
CLAIM_MS = 600_000


class RedisPendingStore:
    """See ``PendingStore``. Goes through the reader's connections, within its time limits."""

    def __init__(self, settings: BusSettings, reader: RedisReader) -> None:
        self._settings = settings
        self._keys = Keys(settings.key_prefix)
        self._reader = reader

    async def fetch(self, channel: str) -> PendingBatch:
        """See ``PendingStore``."""
        return await self._reader.run(pending.fetch(self._settings, self._keys, channel, FETCH_BYTES))

    async def ack(self, channel: str, ids: Sequence[str]) -> int:
        """See ``PendingStore``."""
        acked = await self._reader.run(pending.ack(self._settings, self._keys, channel, ids))
        return len(acked)

    async def ack_upto(self, channel: str, position: Position) -> int:
        """See ``PendingStore``."""
        acked = await self._reader.run(pending.ack_upto(self._settings, self._keys, channel, position))
        return len(acked)

    async def redeliver(self, channel: str, ids: Sequence[str]) -> RedeliveryResult:
        """See ``PendingStore``."""
        due = await self._reader.run(pending.redeliver(self._settings, self._keys, channel, ids))
        if due.dead_lettered:
            # The sweeper is to see it soon, for whoever looks at the figures.
            await self._reader.execute("ZADD", self._keys.index, "LT", now_ms(), channel)
        return due

    async def dead_letter(self, channel: str, id: str, reason: DeathReason, content: bytes) -> bool:
        """See ``PendingStore``."""
        index = pending.noted(self._settings, self._keys, (channel,), now_ms())
        await asyncio.gather(*(self._reader.execute(*command) for command in index))
        return await self._reader.run(pending.dead_letter(self._settings, self._keys, channel, id, reason, content))

    # --- the sweeper's ---------------------------------------------------------------------------------------

    async def lease(self, instance: str, seconds: float) -> int | None:
        """Become the sweeper, or stay it: the fence of the lease; None while it is another instance's."""
        lease, _ = self._keys.sweeper
        life = int(seconds * 1000)
        if await self._reader.execute("SET", lease, instance, "NX", "PX", life):
            return await self._fence("INCR")
        if await self._reader.execute("GET", lease) != instance.encode():
            return None
        await self._reader.execute("PEXPIRE", lease, life)
        return await self._fence("GET")

    async def _fence(self, verb: str) -> int:
        """The fence, or with INCR the next one. It lives on with each renewal; one that was lost nevertheless begins
        with the time, above all that ever were: a lower one would be fenced off everywhere, for weeks.
        """
        _, fence = self._keys.sweeper
        life = int(self._settings.dead_ttl.total_seconds())
        _, number, _ = await asyncio.gather(
            self._reader.execute("SET", fence, now_ms(), "NX", "EX", life),
            self._reader.execute(verb, fence),
            self._reader.execute("EXPIRE", fence, life),
        )
        return int(number)

    async def due(self, limit: int) -> list[str]:
        """Channels whose lists are to be looked at now, the longest waiting first."""
        found = await self._reader.execute("ZRANGEBYSCORE", self._keys.index, "-inf", now_ms(), "LIMIT", 0, limit)
        return [channel.decode() for channel in found]

    async def sweep(self, channel: str, fence: int) -> Sweep:
        """Sweep one channel, and note when to look again."""
        claim = now_ms() + CLAIM_MS
        await self._reader.execute("ZADD", self._keys.index, "XX", claim, channel)
        swept = await self._reader.run(pending.sweep(self._settings, self._keys, channel, fence))
        if not swept.fenced:
            await self._reader.run(pending.reschedule_sweep(self._settings, self._keys, channel, claim, swept))
        return swept

    async def totals(self) -> Totals:
        """Over all channels, as the last sweeps saw them."""
        pending, dead = await self._reader.execute("HMGET", self._keys.totals, "pending", "dead")
        oldest = await self._reader.execute("ZRANGE", self._keys.oldest, 0, 0, "WITHSCORES")
        return Totals(int(pending or 0), int(dead or 0), int(oldest[1]) if oldest else 0)
