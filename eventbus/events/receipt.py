"""Receipts: what happened to an emitted event."""

from __future__ import annotations

from typing import Literal, Protocol

from eventbus.errors import NotAcknowledgeable

__all__ = ["Confirmation", "Receipt", "ReceiptStatus"]


ReceiptStatus = Literal["waiting", "published", "duplicate", "merged", "spooled", "dropped"]


class Confirmation(Protocol):
    """How a receipt learns whether a browser has acknowledged its event."""

    async def until(self, timeout: float) -> bool:  # noqa: ASYNC109 - see Receipt
        """``wait`` for an event loop.

        Args:
            timeout: seconds.

        Returns:
            As ``wait``.
        """
        ...

    def wait(self, timeout: float) -> bool:
        """Return whether the event was acknowledged in time.

        Args:
            timeout: seconds.
        """


class Receipt:
    """The return value of ``emit``.

    Args:
        id_: the event's id.

    Attributes:
        id: the event's id.
        status: ``waiting`` at first. Then ``published``; or ``duplicate``: the channel knows the id, and ``offset`` is
            that of the first event; or ``merged``: a newer state replaced it; or ``spooled``: it is on this host's
            disk until Redis is reachable; or ``dropped``.
        offset: place in the channel once published, else None.
        reason: why it was dropped, else None.
        retry_after: seconds after which it would not have been dropped, where a rate was the reason; else None.
        confirmation: asks for the acknowledgement, where the event needs one; else None.
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
        """Wait until a browser of the user has acknowledged the event.

        Args:
            timeout: seconds.

        Returns:
            Whether it was acknowledged in time.

        Raises:
            NotAcknowledgeable: the event's class does not have ``deliver="ack"``.
            DeliveryFailed: the event is a dead letter.
        """
        return await self._confirmation().until(timeout)

    def wait_delivered(self, timeout: float) -> bool:
        """``delivered`` for code that is not async.

        Args:
            timeout: seconds.

        Returns:
            As ``delivered``.

        Raises:
            NotAcknowledgeable: as ``delivered``.
            DeliveryFailed: as ``delivered``.
        """
        return self._confirmation().wait(timeout)

    def _confirmation(self) -> Confirmation:
        if self.confirmation is None:
            raise NotAcknowledgeable(self.id)
        return self.confirmation

    def __repr__(self) -> str:
        return f"Receipt(id={self.id!r}, status={self.status!r}, offset={self.offset})"
