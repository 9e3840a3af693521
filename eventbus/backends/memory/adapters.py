"""The ports of a backend without a server, for tests and single processes (``memory://``).

The broker keeps the same data as Redis by the same rules; contract tests compare the two. It has no
sweeper, no lease checker and no dead-letter client, and its data end with the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from eventbus.backends.dead_letters import DeathReason
from eventbus.backends.memory.broker import MemoryBroker
from eventbus.backends.pending import DeliveryStatus, PendingBatch, RedeliveryResult
from eventbus.backends.ports import Published, Request
from eventbus.backends.subscription import Listener
from eventbus.operations.state import OperationState
from eventbus.operations.store import OperationInfo
from eventbus.protocol.cursor import Position
from eventbus.protocol.history import History, Page
from eventbus.protocol.topics import UserId, check_id, user_channel

__all__ = [
    "MemoryBroker",
    "MemoryOperations",
    "MemoryPendingStore",
    "MemoryPublisher",
    "MemoryReader",
    "MemorySubscriber",
]


class MemoryPublisher:
    """``Publisher`` over a broker in this process.

    Args:
        broker: keeps the data.
    """

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    def publish(self, requests: Sequence[Request]) -> list[Published | Exception]:
        """See ``Publisher``."""
        return [self._broker.carry_out(request) for request in requests]

    def position(self, channel: str) -> Position:
        """See ``Publisher``."""
        return self._broker.read(channel, None).position

    def delivery_status(self, channel: str, id_: str) -> tuple[DeliveryStatus, str]:
        """See ``Publisher``."""
        return self._broker.delivery_status(channel, id_)

    def close(self) -> None:
        """See ``Publisher``."""


class MemoryReader:
    """``Reader`` over a broker in this process.

    Args:
        broker: keeps the data.
    """

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    async def read(self, channel: str, after: int | None, page: Page | None = None) -> History:
        """See ``Reader``."""
        history = self._broker.read(channel, after)
        return history if page is None else _first_page(history, page)

    async def fork(self, channel: str, epoch: str) -> bool:
        """See ``Reader``."""
        return self._broker.fork(channel, epoch)

    def be_voter(self, heard: Callable[[], tuple[str, Position] | None], moved: Callable[[str], None]) -> None:
        """See ``Reader``. Data in this process end with it."""

    async def renew(self) -> bool:
        """See ``Reader``."""
        return False

    async def positions(self, channels: Sequence[str]) -> list[Position]:
        """See ``Reader``."""
        return [self._broker.read(channel, None).position for channel in channels]

    async def aclose(self) -> None:
        """See ``Reader``."""


def _first_page(history: History, page: Page) -> History:
    size, log = page.bytes, []
    for entry in history.log[: page.entries]:
        if size <= 0:
            break
        log.append(entry)
        # The size in the log includes the header.
        size -= entry.record.size
    return replace(history, log=log, more=len(log) < len(history.log))


class MemoryPendingStore:
    """``PendingStore`` over a broker in this process.

    Args:
        broker: keeps the data.
    """

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    async def fetch(self, channel: str) -> PendingBatch:
        """See ``PendingStore``."""
        return self._broker.fetch(channel)

    async def ack(self, channel: str, ids: Sequence[str]) -> int:
        """See ``PendingStore``."""
        return self._broker.ack(channel, ids)

    async def ack_upto(self, channel: str, position: Position) -> int:
        """See ``PendingStore``."""
        return self._broker.ack_upto(channel, position)

    async def redeliver(self, channel: str, ids: Sequence[str]) -> RedeliveryResult:
        """See ``PendingStore``."""
        return self._broker.redeliver(channel, ids)

    async def dead_letter(self, channel: str, id: str, reason: DeathReason, content: bytes) -> bool:
        """See ``PendingStore``."""
        return self._broker.dead_letter(channel, id, reason, content)


class MemoryOperations:
    """``OperationStore`` over a broker in this process.

    Args:
        broker: keeps the data.
    """

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    async def of(self, user: UserId, limit: int, states: Sequence[OperationState] = ()) -> Sequence[OperationInfo]:
        """See ``OperationStore``."""
        return self._broker.operations(user_channel(user), limit, states)

    async def get(self, user: UserId, op: str) -> OperationInfo | None:
        """See ``OperationStore``."""
        return self._broker.operation(user_channel(user), check_id(op, "op"))

    async def cancel(self, user: UserId, op: str) -> OperationInfo | None:
        """See ``OperationStore``."""
        self._broker.cancel(user_channel(user), check_id(op, "op"))
        return await self.get(user, op)


class MemorySubscriber:
    """``Subscriber`` over a broker in this process.

    Args:
        broker: keeps the data.
    """

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._channels: set[str] = set()
        self._listener: Listener | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self, listener: Listener) -> None:
        """See ``Subscriber``."""
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        listener.restored()

    async def subscribe(self, channel: str) -> None:
        """See ``Subscriber``."""
        self._channels.add(channel)
        self._broker.listen(channel, self, on=True)

    def unsubscribe(self, channel: str) -> None:
        """See ``Subscriber``."""
        self._channels.discard(channel)
        self._broker.listen(channel, self, on=False)

    def receive_control(self, life: str) -> None:
        """See ``Subscriber``: there is no other process."""

    def reconnect(self, reason: str) -> None:
        """See ``Subscriber``: there is no connection."""

    async def aclose(self) -> None:
        """See ``Subscriber``."""
        for channel in list(self._channels):
            self.unsubscribe(channel)
        self._loop = None

    def deliver(self, channel: str, payload: bytes) -> None:
        """See ``MemoryListener``."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._hand_over, channel, payload)

    def _hand_over(self, channel: str, payload: bytes) -> None:
        if self._listener is not None and channel in self._channels:
            self._listener.received(channel, payload)
            self._listener.turn_ended()
