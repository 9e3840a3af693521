"""Telling workers over their broker that operations are to stop: Celery's remote control, spoken by kombu alone."""

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

_WAITING = 1_000
_AT_ONCE = 100
_REMEMBERED = 10_000
# What a transport calls the limits of its sockets; without them a silent broker would hold the thread for ever.
_LIMITS = {
    "redis": ("socket_timeout", "socket_connect_timeout"),
    "rediss": ("socket_timeout", "socket_connect_timeout"),
    "sentinel": ("socket_timeout", "socket_connect_timeout"),
    "amqp": ("read_timeout", "write_timeout"),
    "amqps": ("read_timeout", "write_timeout"),
    "pyamqp": ("read_timeout", "write_timeout"),
}


class BrokerControl:
    """Casts ``revoke_by_stamped_headers``. No answer is waited for: workers that hear nothing look into Redis."""

    def __init__(self, settings: GatewaySettings, counters: Counter[str]) -> None:
        assert settings.broker_url is not None
        self._url = settings.broker_url.get_secret_value()
        self._timeout = settings.broker_timeout
        scheme = self._url.partition("://")[0]
        limits = dict.fromkeys(_LIMITS.get(scheme, ()), self._timeout)
        self._options = {**limits, **settings.broker_options}
        # As Celery's own mailbox declares it: a broker refuses what differs.
        name = Mailbox.exchange_fmt % settings.broker_exchange
        self._exchange = Exchange(name, type="fanout", durable=False, delivery_mode="transient")
        self._waiting: dict[OperationRef, None] = {}
        # Celery's workers keep each stamp that they are told: pressing again and again is not to fill their memory.
        self._told: dict[OperationRef, None] = {}
        self._wanted = asyncio.Event()
        self._counters = counters

    def revoke(self, operation: OperationRef) -> None:
        """Begin to tell workers, once. Neither blocks nor raises; what is one too many is counted and not told."""
        if operation in self._told or operation in self._waiting:
            return
        if len(self._waiting) >= _WAITING:
            self._counters["revoke.dropped"] += 1
            return
        self._waiting[operation] = None
        self._wanted.set()

    async def run(self) -> None:
        """Tell what is to be told, all that waits at once, as long as the gateway lives."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while self._waiting:
                told = list(self._waiting)[:_AT_ONCE]
                for operation in told:
                    del self._waiting[operation]
                    self._told[operation] = None
                for oldest in list(self._told)[:-_REMEMBERED]:
                    del self._told[oldest]
                await self._on_change(told)

    async def _on_change(self, operations: Sequence[OperationRef]) -> None:
        work = asyncio.create_task(asyncio.to_thread(self._cast, [operation.stamp for operation in operations]))
        # Connecting, opening a channel and sending are a step each.
        done, _ = await asyncio.wait([work], timeout=3 * self._timeout)
        failure = work.result() if done else "it takes too long"
        self._counters["revoke.failed" if failure else "revoke.sent"] += len(operations)
        if failure:
            for operation in operations:
                self._told.pop(operation, None)
            log.warning("the broker could not be told of %d cancelled operations: %s", len(operations), failure)
        # One thread at a time, whatever the broker does; what comes meanwhile waits, or is dropped.
        await asyncio.wait([work])

    def _cast(self, stamps: Sequence[str]) -> str | None:
        """Why it could not be sent, or None. Blocks, so it is called in a thread."""
        try:
            with Connection(self._url, connect_timeout=self._timeout, transport_options=self._options) as connection:
                connection.ensure_connection(max_retries=1, interval_start=0, timeout=self._timeout)
                self._publish(connection, stamps)
        except Exception as error:  # noqa: BLE001 - each transport raises errors of its own client
            return f"{type(error).__name__}: {error}"
        return None

    def _publish(self, connection: Connection, stamps: Sequence[str]) -> None:
        # As Mailbox.cast does, but that would try for ever to send on a connection that has just broken.
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
