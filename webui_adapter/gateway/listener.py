"""What the subscriber hears, handed on: publications to the hub, and what the hub says of them to whom it concerns."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from eventbus.errors import InvalidRecord
from eventbus.protocol.records import parse_publication, parse_redelivery
from webui_adapter.channels.channel_recovery import ChannelRecovery
from webui_adapter.channels.hub import Hub
from webui_adapter.channels.redelivery import RedeliveryScheduler
from webui_adapter.clock import Clock
from webui_adapter.gateway.latency_histogram import LatencyHistogram
from webui_adapter.health.redis_monitor import RedisMonitor
from webui_adapter.maintenance.dead_letter_writer import DeadLetterWriter

__all__ = ["SubscriptionListener"]

log = logging.getLogger(__name__)


class SubscriptionListener:
    """``Listener`` of one gateway. ``flush`` writes what sessions have to say; it ends each turn.

    Attributes:
        latency: of events, from when they were emitted until they were handed to the sessions.
    """

    def __init__(
        self,
        hub: Hub,
        repairs: ChannelRecovery,
        watch: RedisMonitor,
        letterbox: RedeliveryScheduler | None,
        undertaker: DeadLetterWriter | None,
        clock: Clock,
        counters: Counter[str],
        flush: Callable[[], None],
    ) -> None:
        self.latency = LatencyHistogram()
        self._hub = hub
        self._sieve = hub.sieve
        self._repairs = repairs
        self._watch = watch
        self._letterbox = letterbox
        self._undertaker = undertaker
        self._clock = clock
        self._counters = counters
        self._flush = flush

    def received(self, channel: str, payload: bytes) -> None:
        """See ``Listener``."""
        try:
            again = parse_redelivery(payload)
            if again is not None:
                self._hub.again(channel, *again)
                return
            publication = parse_publication(payload)
        except InvalidRecord as error:
            self._counters["drop.undecodable"] += 1
            log.warning("a publication on %s cannot be read: %s", channel, error)
            self._sieve.unreadable(channel, payload)
            return
        if not self._hub.receive(channel, publication):
            self._counters["hole"] += 1
            self._repairs.repair(self._hub.channels[channel])

    def turn_ended(self) -> None:
        """See ``Listener``."""
        self._flush()
        if self._sieve.condemned:
            if self._undertaker is not None:
                self._undertaker.take(self._sieve.condemned)
            self._sieve.condemned.clear()
        owing = self._hub.owing
        if owing:
            if self._letterbox is not None:
                for channel, record in owing:
                    if channel in self._hub.channels:  # or its last reader has gone since
                        self._letterbox.heard(channel, record)
            owing.clear()
        routed = self._hub.routed
        if routed:
            self.latency.observe_since(self._clock.wall(), routed)
            routed.clear()

    def lost(self, reason: str) -> None:
        """See ``Listener``."""
        self._watch.lost(reason)

    def restored(self) -> None:
        """See ``Listener``."""
        self._watch.restored()

    def canary_received(self, text: str) -> None:
        """See ``Listener``."""
        self._watch.canary_received(text)
