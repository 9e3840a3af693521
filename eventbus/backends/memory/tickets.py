"""Tickets in the process."""

from __future__ import annotations

import time

__all__ = ["MemoryTickets"]


class MemoryTickets:
    """``TicketStore`` in this process, with the same bound."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[float, str, bytes]] = {}

    async def keep(self, digest: str, user: str, content: bytes, seconds: float, limit: int) -> bool:
        """See ``TicketStore``."""
        now = time.monotonic()
        self._kept = {name: entry for name, entry in self._kept.items() if entry[0] > now}
        if sum(owner == user for _, owner, _ in self._kept.values()) >= limit:
            return False
        self._kept[digest] = (now + seconds, user, content)
        return True

    async def take(self, digest: str) -> bytes | None:
        """See ``TicketStore``."""
        end, _, content = self._kept.pop(digest, (0.0, "", b""))
        return content if end > time.monotonic() else None
