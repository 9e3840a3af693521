"""Tickets in Redis, for an event loop."""

from __future__ import annotations

import math
from typing import cast

from eventbus.backends.redis.reader import RedisReader
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.backends.redis.scripts.script import Call, script
from eventbus.settings import BusSettings

__all__ = ["RedisTickets"]


class RedisTickets:
    """``TicketStore``. It uses a reader's connection and time limits.

    Args:
        settings: the keys' prefix.
        reader: runs the commands.
    """

    def __init__(self, settings: BusSettings, reader: RedisReader) -> None:
        self._keys = Keys.of(settings)
        self._reader = reader

    async def keep(self, digest: str, user: str, content: bytes, seconds: float, limit: int) -> bool:
        """See ``TicketStore``."""
        life = math.ceil(seconds)
        counted = Call(script("tickets/count"), (self._keys.tickets(user),), (life,), int)
        if await self._reader.run(counted) > limit:
            return False
        await self._reader.execute("SET", self._keys.ticket(digest), content, "EX", life)
        return True

    async def take(self, digest: str) -> bytes | None:
        """See ``TicketStore``."""
        return cast("bytes | None", await self._reader.execute("GETDEL", self._keys.ticket(digest)))
