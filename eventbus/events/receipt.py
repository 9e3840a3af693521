"""Receipts: what became of an emitted event."""

from __future__ import annotations

from typing import Literal, Protocol

from eventbus.errors import NotAcknowledgeable

__all__ = ["Receipt", "ReceiptStatus"]


ReceiptStatus = Literal["waiting", "published", "duplicate", "merged", "spooled", "dropped"]


class Watching(Protocol):
    """How a receipt finds out what became of its event."""

    async def until(self, timeout: float) -> bool: ...  # noqa: ASYNC109 - see Receipt
    def wait(self, timeout: float) -> bool: ...


class Receipt:
    """What ``emit`` returns.

    Attributes:
        id: the event's id.
        fate: ``waiting``, then ``published``, ``duplicate`` (the id was known; ``offset`` is that of the first),
            ``merged`` (a newer state took its place), ``spooled`` (on this host's disk until Redis is back) or
            ``dropped``.
        offset: place in the channel once published, else None.
        reason: why it was dropped, else None.
        retry_after: seconds after which it would not have been dropped, where a rate was the reason; else None.
    """

    __slots__ = ("fate", "id", "offset", "reason", "retry_after", "watch")

    def __init__(self, id_: str) -> None:
        self.id = id_
        self.fate: ReceiptStatus = "waiting"
        self.offset: int | None = None
        self.reason: str | None = None
        self.retry_after: float | None = None
        self.watch: Watching | None = None

    async def delivered(self, timeout: float) -> bool:  # noqa: ASYNC109 - how long is the caller's to say
        """Whether a browser of the user has acknowledged it within ``timeout`` seconds.

        Raises:
            NotAcknowledgeable: its class has not ``deliver="ack"``.
            DeliveryFailed: it is among the dead letters.
        """
        return await self._watched().until(timeout)

    def wait_delivered(self, timeout: float) -> bool:
        """``delivered`` for code that is not async."""
        return self._watched().wait(timeout)

    def _watched(self) -> Watching:
        if self.watch is None:
            raise NotAcknowledgeable(self.id)
        return self.watch

    def __repr__(self) -> str:
        return f"Receipt(id={self.id!r}, fate={self.fate!r}, offset={self.offset})"
