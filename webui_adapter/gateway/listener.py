"""The listener of one gateway: publications go to the hub, and at the end of a turn on to other parts."""

from __future__ import annotations

import logging
from collections.abc import Callable

from eventbus.errors import InvalidRecord, NewerFormat
from eventbus.protocol.records import parse_publication, parse_redelivery
from webui_adapter.channels.channel_recovery import ChannelRecovery
from webui_adapter.channels.hub import Hub
from webui_adapter.channels.redelivery import RedeliveryScheduler
from webui_adapter.context import GatewayContext
from webui_adapter.health.format_monitor import FormatMonitor
from webui_adapter.health.latency_histogram import LatencyHistogram
from webui_adapter.health.redis_monitor import RedisMonitor
from webui_adapter.maintenance.dead_letter_writer import DeadLetterWriter
from webui_adapter.maintenance.revocation_monitor import RevocationMonitor

__all__ = ["SubscriptionListener", "TurnEnd"]

log = logging.getLogger(__name__)


class TurnEnd:
    """Hands on what the hub has collected in one turn of the event loop.

    Args:
        context: the shared context.
        hub: the channels.
        redelivery: tracks events that must be acknowledged; None: there are none.
        dead_letter_writer: stores rejected events; None: they are dropped.

    Attributes:
        latency: of events, from ``emit`` to the sessions.
    """

    def __init__(
        self,
        context: GatewayContext,
        hub: Hub,
        redelivery: RedeliveryScheduler | None,
        dead_letter_writer: DeadLetterWriter | None,
    ) -> None:
        self.latency = LatencyHistogram()
        self._flush = context.flush
        self._clock = context.clock
        self._hub = hub
        self._validator = hub.validator
        self._redelivery = redelivery
        self._dead_letter_writer = dead_letter_writer

    def run(self) -> None:
        """Flush the sessions; then pass on rejected events, events to be acknowledged, and latencies."""
        self._flush()
        if self._validator.rejected:
            if self._dead_letter_writer is not None:
                self._dead_letter_writer.add(self._validator.rejected)
            self._validator.rejected.clear()
        unacknowledged = self._hub.unacknowledged
        if unacknowledged:
            if self._redelivery is not None:
                for channel, record in unacknowledged:
                    # The last session of the channel may have left in this turn.
                    if channel in self._hub.channels:
                        self._redelivery.track(channel, record)
            unacknowledged.clear()
        routed = self._hub.routed
        if routed:
            self.latency.observe_since(self._clock.wall(), routed)
            routed.clear()


class SubscriptionListener:
    """The ``Listener`` of one gateway: publications go to the hub, changes of the connection to the monitor.

    Args:
        context: the shared context.
        hub: the channels.
        channel_recovery: reads what a channel has missed.
        redis_monitor: the health of Redis.
        format_monitor: notes publications of a newer version.
        turn_end: runs at the end of each turn.
        revocation_monitor: reads revocations; None: there are none.

    Attributes:
        on_control: takes messages of other instances.
    """

    def __init__(
        self,
        context: GatewayContext,
        hub: Hub,
        channel_recovery: ChannelRecovery,
        redis_monitor: RedisMonitor,
        format_monitor: FormatMonitor,
        turn_end: TurnEnd,
        revocation_monitor: RevocationMonitor | None = None,
    ) -> None:
        self._format_monitor = format_monitor
        self._counters = context.counters
        self._hub = hub
        self._validator = hub.validator
        self._channel_recovery = channel_recovery
        self._redis_monitor = redis_monitor
        self._turn_end = turn_end
        self._revocation_monitor = revocation_monitor
        self.on_control: Callable[[bytes], None] = lambda _: None

    def received(self, channel: str, payload: bytes) -> None:
        """Pass a publication to its channel.

        Args:
            channel: the channel's name.
            payload: the bytes of the publication.
        """
        try:
            self._receive(channel, payload)
        except Exception:
            # Anything that left this method would end the connection, and with it every subscription.
            self._counters["drop.unexpected"] += 1
            log.exception("cannot read a publication on %s; please report this error", channel)
            self._recover(channel)

    def _receive(self, channel: str, payload: bytes) -> None:
        try:
            again = parse_redelivery(payload)
            if again is not None:
                self._hub.redeliver(channel, *again)
                return
            publication = parse_publication(payload)
        except NewerFormat as error:
            self._format_monitor.met(channel, error.found)
            self._recover(channel)
            return
        except InvalidRecord as error:
            self._counters["drop.undecodable"] += 1
            log.warning("cannot read a publication on %s: %s", channel, error)
            self._validator.reject_unreadable(channel, payload)
            return
        if not self._hub.receive(channel, publication):
            self._counters["hole"] += 1
            self._channel_recovery.recover(self._hub.channels[channel])

    def _recover(self, name: str) -> None:
        """Read a channel again: its pages learn if they miss something."""
        channel = self._hub.channels.get(name)
        if channel is not None:
            self._hub.suspend(channel)
            self._channel_recovery.recover(channel)

    def turn_ended(self) -> None:
        """Hand on what this turn has collected."""
        self._turn_end.run()

    def lost(self, reason: str) -> None:
        """Report that the subscriber has lost its connection.

        Args:
            reason: the cause, for the log.
        """
        self._redis_monitor.lost(reason)

    def restored(self) -> None:
        """Report that the subscriber has subscribed to all channels again."""
        self._redis_monitor.restored()
        self.revoked()

    def revoked(self) -> None:
        """Read revocations: there is a new one, or its announcement may be lost."""
        if self._revocation_monitor is not None:
            self._revocation_monitor.wake()

    def control_received(self, payload: bytes) -> None:
        """Pass a message of another instance on.

        Args:
            payload: the message.
        """
        try:
            self.on_control(payload)
        except Exception:
            self._counters["drop.unexpected"] += 1
            log.exception("cannot carry out a message of another instance; please report this error")

    def canary_received(self, text: str) -> None:
        """Report a health check that arrived through pub/sub.

        Args:
            text: the text of the check.
        """
        self._redis_monitor.canary_received(text)
