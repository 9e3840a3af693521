"""Receipts: what became of an emitted event."""

from __future__ import annotations

from typing import Literal, Protocol

from eventbus.errors import NotAcknowledgeable

__all__ = ["Receipt", "ReceiptStatus"]


ReceiptStatus = Literal["waiting", "published", "duplicate", "merged", "spooled", "dropped"]


class Confirmation(Protocol):
    """How a receipt finds out what became of its event."""

    async def until(self, timeout: float) -> bool: ...  # noqa: ASYNC109 - see Receipt
    def wait(self, timeout: float) -> bool: ...


class Receipt:
    """What ``emit`` returns.

    Attributes:
        id: the event's id.
        status: ``waiting``, then ``published``, ``duplicate`` (the id was known; ``offset`` is that of the first),
            ``merged`` (a newer state took its place), ``spooled`` (on this host's disk until Redis is back) or
            ``dropped``.
        offset: place in the channel once published, else None.
        reason: why it was dropped, else None.
        retry_after: seconds after which it would not have been dropped, where a rate was the reason; else None.
    """

    __slots__ = ("confirmation", "id", "offset", "reason", "retry_after", "status")

    def __init__(self, id_: str) -> None:
        self.id = id_
        self.status: ReceiptStatus = "waiting"
        self.offset: int | None = None
        self.reason: str | None = None
        self.retry_after: float | None = None
        self.confirmation: Confirmation | None = None

    async def delivered(self, timeout: float) -> bool:  # noqa: ASYNC109 - how long is the caller's to say
        """Whether a browser of the user has acknowledged it within ``timeout`` seconds.

        Raises:
            NotAcknowledgeable: its class has not ``deliver="ack"``.
            DeliveryFailed: it is among the dead letters.
        """
        return await self._confirmation().until(timeout)

    def wait_delivered(self, timeout: float) -> bool:
        """``delivered`` for code that is not async."""
        return self._confirmation().wait(timeout)

    def _confirmation(self) -> Confirmation:
        if self.confirmation is None:
            raise NotAcknowledgeable(self.id)
        return self.confirmation

    def __repr__(self) -> str:
        return f"Receipt(id={self.id!r}, status={self.status!r}, offset={self.offset})"
