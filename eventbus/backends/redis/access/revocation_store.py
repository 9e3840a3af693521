"""Revocations in Redis, for an event loop."""

from __future__ import annotations

from collections.abc import Sequence

from eventbus.backends.audit import Via
from eventbus.backends.redis.audit.audit_log import RedisAuditStore
from eventbus.backends.redis.reader import RedisReader
from eventbus.backends.redis.scripts import revocations
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.backends.revocations import Revocation, RevocationRequest
from eventbus.settings import BusSettings

__all__ = ["RedisRevocations"]


class RedisRevocations:
    """``RevocationStore``. It uses a reader's connection and time limits.

    Args:
        settings: limit, lifetime and the keys' prefix.
        reader: runs the scripts.
        via: how the calls come, for the audit log.
    """

    def __init__(self, settings: BusSettings, reader: RedisReader, *, via: Via = "python") -> None:
        self._audit = RedisAuditStore(settings, reader)
        self._via = via
        self._settings = settings
        self._keys = Keys.of(settings)
        self._reader = reader

    async def revoke(self, request: RevocationRequest) -> Revocation:
        """See ``RevocationStore``."""
        await self._audit.record(request.audit_entry(self._via))
        return await self._reader.run(revocations.revoke(self._settings, self._keys, request))

    async def changes(self, after: int) -> Sequence[Revocation]:
        """See ``RevocationStore``."""
        return await self._reader.run(revocations.changes(self._keys, after))
