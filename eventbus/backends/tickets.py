"""The port of tickets: short-lived, single-use credentials for clients that can send no header."""

from __future__ import annotations

from typing import Protocol

__all__ = ["TicketStore"]


class TicketStore(Protocol):
    """Keeps tickets for all gateways. Every method raises ``Unavailable`` or ``Refused``."""

    async def keep(self, digest: str, user: str, content: bytes, seconds: float, limit: int) -> bool:
        """Keep a ticket.

        Args:
            digest: names it.
            user: whose it is.
            content: what it stands for.
            seconds: how long.
            limit: the largest number of tickets of the user in that time.

        Returns:
            False if the user has as many: it is not kept.
        """

    async def take(self, digest: str) -> bytes | None:
        """Take a ticket out. Of several calls one gets it.

        Args:
            digest: names it.

        Returns:
            The content; None: there is no such ticket.
        """
