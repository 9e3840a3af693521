"""Broker control: it revokes cancelled operations through Celery's remote control, with kombu alone."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence

from kombu.connection import Connection
from kombu.entity import Exchange
from kombu.messaging import Producer
from kombu.pidbox import Mailbox

from eventbus.operations.events import STAMP, OperationRef
from webui_adapter.settings import GatewaySettings

__all__ = ["BrokerControl"]

log = logging.getLogger(__name__)

_QUEUED = 1_000
_BATCH = 100
_REMEMBERED = 10_000
# The transports' options for socket timeouts. Without them a silent broker would block the thread forever.
_LIMITS = {
    "redis": ("socket_timeout", "socket_connect_timeout"),
    "rediss": ("socket_timeout", "socket_connect_timeout"),
    "sentinel": ("socket_timeout", "socket_connect_timeout"),
    "amqp": ("read_timeout", "write_timeout"),
    "amqps": ("read_timeout", "write_timeout"),
    "pyamqp": ("read_timeout", "write_timeout"),
}


class BrokerControl:
    """Sends ``revoke_by_stamped_headers`` and expects no answer: workers also read cancellations from Redis."""

    def __init__(self, settings: GatewaySettings, counters: Counter[str]) -> None:
        """Begin without a connection.

        Args:
            settings: The broker's URL, options and timeout.
            counters: Receives ``revoke.sent``, ``revoke.failed`` and ``revoke.dropped``.
        """
        assert settings.broker_url is not None
        self._url = settings.broker_url.get_secret_value()
        self._timeout = settings.broker_timeout
        scheme = self._url.partition("://")[0]
        limits = dict.fromkeys(_LIMITS.get(scheme, ()), self._timeout)
        self._options = {**limits, **settings.broker_options}
        # Declared as Celery's own mailbox does: a broker refuses another declaration.
        name = Mailbox.exchange_fmt % settings.broker_exchange
        self._exchange = Exchange(name, type="fanout", durable=False, delivery_mode="transient")
        self._queue: dict[OperationRef, None] = {}
        # Celery's workers keep each revoked stamp. Repeated cancellations must not fill their memory.
        self._sent: dict[OperationRef, None] = {}
        self._work = asyncio.Event()
        self._counters = counters

    def revoke(self, operation: OperationRef) -> None:
        """Begin to revoke an operation's tasks, once. Never blocks.

        Args:
            operation: The operation. If too many are queued, it is dropped and counted.
        """
        if operation in self._sent or operation in self._queue:
            return
        if len(self._queue) >= _QUEUED:
            self._counters["revoke.dropped"] += 1
            return
        self._queue[operation] = None
        self._work.set()

    async def run(self) -> None:
        """Send queued revocations in batches, as long as the gateway lives."""
        while True:
            await self._work.wait()
            self._work.clear()
            while self._queue:
                batch = list(self._queue)[:_BATCH]
                for operation in batch:
                    del self._queue[operation]
                    self._sent[operation] = None
                for oldest in list(self._sent)[:-_REMEMBERED]:
                    del self._sent[oldest]
                await self._send(batch)

    async def _send(self, operations: Sequence[OperationRef]) -> None:
        work = asyncio.create_task(asyncio.to_thread(self._cast, [operation.stamp for operation in operations]))
        # Three steps: connect, open a channel, send.
        done, _ = await asyncio.wait([work], timeout=3 * self._timeout)
        failure = work.result() if done else "it takes too long"
        self._counters["revoke.failed" if failure else "revoke.sent"] += len(operations)
        if failure:
            for operation in operations:
                self._sent.pop(operation, None)
            log.warning("cannot revoke %d cancelled operations through the broker: %s", len(operations), failure)
        # One thread at a time, whatever the broker does. Later revocations are queued or dropped.
        await asyncio.wait([work])

    def _cast(self, stamps: Sequence[str]) -> str | None:
        """Send, and return why it failed, or None. Blocks: for a thread."""
        try:
            with Connection(self._url, connect_timeout=self._timeout, transport_options=self._options) as connection:
                connection.ensure_connection(max_retries=1, interval_start=0, timeout=self._timeout)
                self._publish(connection, stamps)
        except Exception as error:  # noqa: BLE001 - each transport raises errors of its client
            return f"{type(error).__name__}: {error}"
        return None

    def _publish(self, connection: Connection, stamps: Sequence[str]) -> None:
        # As Mailbox.cast does. But that would retry forever on a connection that has just broken.
        message = {
            "method": "revoke_by_stamped_headers",
            "arguments": {"headers": {STAMP: list(stamps)}, "terminate": False, "signal": None},
            "destination": None,
            "pattern": None,
            "matcher": None,
        }
        producer = Producer(connection, auto_declare=False)
        headers = {"clock": 0, "expires": 0}
        exchange = self._exchange
        producer.publish(message, exchange=exchange.name, declare=[exchange], headers=headers, serializer="json")
