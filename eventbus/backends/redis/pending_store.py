"""Pending events in Redis, for an event loop: what gateways and their sweeper do with the lists."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from eventbus.backends.dead_letters import DeathReason
from eventbus.backends.pending import PendingBatch, RedeliveryResult, Sweep, Totals
from eventbus.backends.redis.reader import RedisReader
from eventbus.backends.redis.scripts import pending
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.protocol.cursor import Position
from eventbus.settings import BusSettings

__all__ = ["RedisPendingStore"]

# Bytes of pending events in one answer. Redelivery brings the rest.
FETCH_BYTES: Final = 1_048_576
# Milliseconds for which a sweeper claims a channel, and between two sweeps of a channel.
CLAIM_MS: Final = 600_000


class RedisPendingStore:
    """``PendingStore`` and ``SweepStore``. It uses a reader's connection and time limits.

    Args:
        settings: limits, lifetimes and the keys' prefix.
        reader: runs the scripts.
    """

    def __init__(self, settings: BusSettings, reader: RedisReader) -> None:
        self._settings = settings
        self._keys = Keys.of(settings)
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
        result = await self._reader.run(pending.redeliver(self._settings, self._keys, channel, ids))
        if result.dead_lettered:
            # Schedule a sweep, since only a sweep updates the totals that operators see.
            await self._reader.execute("ZADD", self._keys.index, "LT", await self._reader.server_ms(), channel)
        return result

    async def dead_letter(self, channel: str, id: str, reason: DeathReason, content: bytes) -> bool:
        """See ``PendingStore``."""
        index = pending.index_channels(self._settings, self._keys, (channel,), await self._reader.server_ms())
        await asyncio.gather(*(self._reader.execute(*command) for command in index))
        return await self._reader.run(pending.dead_letter(self._settings, self._keys, channel, id, reason, content))

    # --- the sweeper -------------------------------------------------------------------------------------------

    async def lease(self, instance: str, seconds: float) -> int | None:
        """See ``SweepStore``."""
        lease, _ = self._keys.sweeper
        life = int(seconds * 1000)
        if await self._reader.execute("SET", lease, instance, "NX", "PX", life):
            return await self._token("INCR")
        if await self._reader.execute("GET", lease) != instance.encode():
            return None
        await self._reader.execute("PEXPIRE", lease, life)
        return await self._token("GET")

    async def _token(self, verb: str) -> int:
        """Return the present fencing token (``GET``), or take the next one (``INCR``).

        Tokens must never decrease: a channel refuses a sweeper whose token is lower than the last
        one it saw, for up to ``dead_ttl``. If the key was lost, tokens restart from the time in
        milliseconds, which is above all earlier ones.
        """
        _, fence = self._keys.sweeper
        life = int(self._settings.dead_ttl.total_seconds())
        await self._reader.server_ms()
        _, number, _ = await asyncio.gather(
            self._reader.execute("SET", fence, self._reader.clock.now_ms(), "NX", "EX", life),
            self._reader.execute(verb, fence),
            self._reader.execute("EXPIRE", fence, life),
        )
        return int(number)

    async def due(self, limit: int) -> list[str]:
        """See ``SweepStore``."""
        now = await self._reader.server_ms()
        found = await self._reader.execute("ZRANGEBYSCORE", self._keys.index, "-inf", now, "LIMIT", 0, limit)
        return [channel.decode() for channel in found]

    async def sweep(self, channel: str, token: int) -> Sweep:
        """See ``SweepStore``. Sets the time of the next sweep."""
        claim = await self._reader.server_ms() + CLAIM_MS
        await self._reader.execute("ZADD", self._keys.index, "XX", claim, channel)
        swept = await self._reader.run(pending.sweep(self._settings, self._keys, channel, token))
        if not swept.fenced:
            await self._reader.run(pending.reschedule_sweep(self._settings, self._keys, channel, claim, swept))
        return swept

    async def totals(self) -> Totals:
        """See ``SweepStore``."""
        pending, dead = await self._reader.execute("HMGET", self._keys.totals, "pending", "dead")
        oldest = await self._reader.execute("ZRANGE", self._keys.oldest, 0, 0, "WITHSCORES")
        return Totals(int(pending or 0), int(dead or 0), int(oldest[1]) if oldest else 0)
