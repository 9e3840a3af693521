"""Operations in Redis, for an event loop: what gateways and their lease checker do with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from eventbus.backends.redis.operation_client import is_too_late
from eventbus.backends.redis.reader import RedisReader
from eventbus.backends.redis.scripts import operations
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.errors import InvalidName
from eventbus.operations.changes import event_stamp
from eventbus.operations.state import OperationState
from eventbus.operations.store import LeaseExpiry, OperationInfo
from eventbus.protocol.topics import UserId, check_id, user_channel
from eventbus.settings import BusSettings

__all__ = ["RedisOperations"]

# Milliseconds for which a lease checker claims an operation. If it dies, the check comes so much
# later.
_CLAIM_MS: Final = 30_000


class RedisOperations:
    """``OperationStore`` and ``LeaseStore``. It uses a reader's connection and time limits.

    Args:
        settings: limits, lifetimes and the keys' prefix.
        reader: runs the scripts.
    """

    def __init__(self, settings: BusSettings, reader: RedisReader) -> None:
        self._settings = settings
        self._keys = Keys.of(settings)
        self._reader = reader

    async def of(self, user: UserId, limit: int, states: Sequence[OperationState] = ()) -> Sequence[OperationInfo]:
        """See ``OperationStore``."""
        return await self._reader.run(operations.list_operations(self._keys, user_channel(user), limit, states))

    async def get(self, user: UserId, op: str) -> OperationInfo | None:
        """See ``OperationStore``."""
        channel = user_channel(user)
        return await self._reader.run(operations.describe(self._settings, self._keys, channel, check_id(op, "op")))

    async def cancel(self, user: UserId, op: str) -> OperationInfo | None:
        """See ``OperationStore``. Workers get the request first: an operation that reports
        ``cancelled`` must not run.
        """
        channel = user_channel(user)
        known = await self.get(user, op)
        if known is None or is_too_late(known):
            return known
        for command in operations.publish_cancelled(
            self._settings, self._keys, channel, op, await self._reader.server_ms()
        ):
            await self._reader.execute(*command)
        format_ = await self._reader.format_to_write()
        await self._reader.run(operations.cancel(self._settings, self._keys, channel, op, event_stamp(""), format_))
        return await self.get(user, op)

    # --- the lease checker -------------------------------------------------------------------------------------

    async def due(self, limit: int) -> Sequence[str]:
        """See ``LeaseStore``."""
        now = await self._reader.server_ms()
        found = await self._reader.execute("ZRANGEBYSCORE", self._keys.leases, "-inf", now, "LIMIT", 0, limit)
        return [member.decode() for member in found]

    async def server_ms(self) -> int:
        """See ``LeaseStore``."""
        return await self._reader.server_ms()

    async def expire_leases(self, member: str) -> LeaseExpiry:
        """See ``LeaseStore``."""
        channel, _, op = member.rpartition(" ")
        claim = await self._reader.server_ms() + _CLAIM_MS
        await self._reader.execute("ZADD", self._keys.leases, "XX", claim, member)
        kind, _, user = channel.partition(":")
        try:
            check_id(op, "op")
            check_id(user if kind == "user" else None, "user")
        except InvalidName:
            found = LeaseExpiry(None, 0)  # this library did not write it; the index drops it
        else:
            format_ = await self._reader.format_to_write()
            call = operations.expire_leases(self._settings, self._keys, channel, op, event_stamp(""), format_)
            found = await self._reader.run(call)
        await self._reader.run(
            operations.reschedule_check(self._keys, member, claim, found, self._reader.clock.now_ms())
        )
        return found
