"""What one connection follows: its channels, the past that is handed over, and how far it has been told. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from eventbus.protocol.cursor import Position
from eventbus.protocol.records import Record
from eventbus.protocol.recovery import Resumption
from eventbus.protocol.topics import channel_of, whole_channel
from webui_adapter.protocol.close_codes import CloseCode
from webui_adapter.protocol.commands import Subscribe
from webui_adapter.session.batch import Batch, Delivery
from webui_adapter.session.channel_subscription import ChannelSubscription, covered
from webui_adapter.session.output import Output, Overflow

__all__ = ["Subscriptions"]


class Subscriptions:
    """What one connection reads of its channels.

    Attributes:
        views: what it reads, by channel.
        awaiting_authorisation: subscriptions that wait for the authoriser.
    """

    __slots__ = ("awaiting_authorisation", "channels", "output")

    def __init__(self, output: Output) -> None:
        """Begin without a channel; ``output`` is what is written to the connection."""
        self.output = output
        self.channels: dict[str, ChannelSubscription] = {}
        self.awaiting_authorisation: list[Subscribe] = []

    # --- patterns --------------------------------------------------------------------------------------------

    def topics(self) -> set[str]:
        """Patterns in all channels, those that still wait for something included."""
        channels = self.channels.values()
        queued = [command for subscription in channels for command in subscription.queued_commands]
        return {pattern for subscription in channels for pattern in subscription.patterns} | {
            c.topic for c in (*queued, *self.awaiting_authorisation)
        }

    def add(self, command: Subscribe, here: int) -> ChannelSubscription:
        """Add a pattern; live events of its channel are buffered until ``replay``.

        ``here`` is the offset up to which live events have been handed to the sessions of this channel. What an
        earlier pattern has brought is not brought again, unless this one asks for it by ``since``.
        """
        channel = channel_of(command.topic)
        subscription = self.channels.get(channel)
        if subscription is None:
            subscription = self.channels[channel] = ChannelSubscription()
        else:
            subscription.delivered_offset = here
        subscription.recovering = command
        if command.since is not None:
            self.output.positions.setdefault(channel, command.since)
        subscription.patterns[command.topic] = None
        subscription.whole = whole_channel(channel) in subscription.patterns
        return subscription

    def remove(self, pattern: str) -> ChannelSubscription | None:
        """Take a pattern away; the view if it was the last one there."""
        self.awaiting_authorisation = [command for command in self.awaiting_authorisation if command.topic != pattern]
        channel = channel_of(pattern)
        subscription = self.channels.get(channel)
        if subscription is None:
            return None
        subscription.queued_commands = [command for command in subscription.queued_commands if command.topic != pattern]
        subscription.patterns.pop(pattern, None)
        subscription.recovered_topics = tuple(topic for topic in subscription.recovered_topics if topic != pattern)
        subscription.whole = whole_channel(channel) in subscription.patterns
        if subscription.patterns:
            return None
        self.drop(channel)
        self.output.discard(channel, "unsubscribed")
        return subscription

    def drop(self, channel: str) -> None:
        """The session reads the channel no longer."""
        self.channels.pop(channel, None)
        self.output.positions.pop(channel, None)

    # --- the past --------------------------------------------------------------------------------------------

    def replay(self, channel: str, resumption: Resumption, kept: Resumption | None) -> None:
        """Hand over what ``resume`` found for the subscription that waits for it; only to an idle session.

        ``kept`` is the same for those that were settled before: what has come for them meanwhile.
        """
        subscription = self.channels[channel]
        command = subscription.recovering
        assert command is not None
        records = {record.offset: record for record in resumption.records if subscription.needs(command, record)}
        start, gap = resumption.start, resumption.gap
        if kept is not None:
            records |= {
                record.offset: record for record in kept.records if covered(subscription.recovered_topics, record.topic)
            }
            start, gap = min(start, kept.start, key=lambda position: position.offset), gap or kept.gap
        whole = Resumption(start, [records[offset] for offset in sorted(records)], resumption.position, gap)
        if resumption.more:
            # A page of it: the next one when the browser has taken this.
            subscription.recovering = replace(command, since=resumption.position, ref=None)
            if subscription.recovered_topics:
                subscription.delivered_offset = resumption.position.offset
            self._bring(channel, subscription, whole, "resumed", list(subscription.patterns), command.ref)
            return
        subscription.recovering = None
        subscription.buffered_live = []
        subscription.recovered_topics = tuple(subscription.patterns)
        subscription.live_after = resumption.position.offset
        how = "gap" if gap else "snapshot" if command.since is None else "resumed"
        self._bring(channel, subscription, whole, how, list(subscription.patterns), command.ref)

    def _hand_owed(self, channel: str, subscription: ChannelSubscription, start: int) -> set[int]:
        """What the user is owed, before the rest of the channel: out of its order, so under a hold. Its offsets."""
        owed, subscription.pending = subscription.pending, None
        wanted = [] if owed is None else [record for record in owed.records if subscription.covers(record.topic)]
        if wanted:
            self.output.hold(channel, start)
            for record in wanted:
                self.output.write_event(Delivery(channel, record), in_order=False)
            self.output.release(channel, start)
        return {record.offset for record in wanted}

    def redeliver(self, deliveries: Sequence[Delivery]) -> None:
        """Events that nobody has acknowledged in time. Who is slow has them waiting, or will read them."""
        for delivery in deliveries:
            subscription = self.channels.get(delivery.channel)
            if (
                self.output.idle
                and subscription is not None
                and subscription.recovering is None
                and subscription.covers(delivery.topic)
            ):
                self.output.write_event(delivery, in_order=False)

    def restart_after_gap(self, channel: str, resumption: Resumption) -> None:
        """The whole channel has lost events: say so and begin anew from its present state."""
        subscription = self.channels[channel]
        self.output.discard(channel, "gap")
        if subscription.recovered_topics:
            subscription.delivered_offset = resumption.position.offset
            records = [record for record in resumption.records if covered(subscription.recovered_topics, record.topic)]
            self._bring(
                channel,
                subscription,
                replace(resumption, records=records),
                "gap",
                list(subscription.recovered_topics),
                None,
            )
        if subscription.recovering is None:
            subscription.live_after = resumption.position.offset
        else:
            # It waits for a reading of its own, which what came before would not fit.
            subscription.buffered_live.clear()

    def end_epoch(self, channel: str) -> None:
        """The life of a channel has ended in Redis, and nothing of it was missed: what comes next is of another one."""
        subscription = self.channels[channel]
        if self.output.has_queued(channel) or (subscription.recovered_topics and subscription.buffered_live):
            # It would come after the next life has begun, and be taken for that one's.
            self.output.close(
                CloseCode.TOO_SLOW, "the channel begins anew, and this was behind; resume with the cursor"
            )
        subscription.live_after = 0
        subscription.delivered_offset = 0
        subscription.buffered_live.clear()

    def begin_epoch(self, channel: str, epoch: str) -> None:
        """A channel begins a life, and this session has missed nothing: the epoch belongs to the page's cursor."""
        self.end_epoch(channel)
        subscription = self.channels[channel]
        if subscription.recovering is None:
            self.output.positions[channel] = Position(epoch, 0)
            where = {"channel": channel, "epoch": epoch, "offset": 0}
            self.output.send("bus.subscribed", {**where, "how": "resumed", "topics": list(subscription.patterns)})

    def rewind(self, overflow: Overflow) -> bool:
        """The send queue has no room: the client goes on from what it has. False: it is being recovered anyway."""
        channel, output = overflow.channel, self.output
        subscription, position = self.channels.get(channel), output.positions.get(channel)
        if subscription is None or subscription.recovering is not None or position is None:
            return False
        output.discard(channel, "behind")
        output.counters["behind"] += 1
        since = output.positions[channel] = Position(position.epoch, overflow.offset)
        subscription.recovering = Subscribe(next(iter(subscription.patterns)), since)
        subscription.recovered_topics, subscription.delivered_offset = tuple(subscription.patterns), overflow.offset
        subscription.buffered_live.clear()
        return True

    def _bring(
        self,
        channel: str,
        subscription: ChannelSubscription,
        whole: Resumption,
        how: str,
        topics: list[str],
        ref: str | float | None,
    ) -> None:
        """A replay's events and the words around them.

        Straight to the line: a history is bounded by the log, and the backlog may not be able to hold it.
        """
        start, end = whole.start, whole.position
        where = {"channel": channel, "epoch": end.epoch}
        if whole.gap is not None:
            self.output.counters[f"gap.{whole.gap.reason}"] += 1
            self.output.send("bus.gap", {**where, "offset": end.offset, "reason": whole.gap.reason})
        self.output.counters[f"resume.{how}"] += 1
        answer = {} if ref is None else {"ref": ref}
        self.output.send("bus.subscribed", {**where, "offset": start.offset, "how": how, "topics": topics, **answer})
        self.output.positions[channel] = start
        handed = self._hand_owed(channel, subscription, start.offset)
        for record in whole.records:
            if record.offset in handed or not record.event:
                continue
            self.output.write_event(Delivery(channel, record))
        self.output.positions[channel] = end
        self.output.send("bus.position", {**where, "offset": end.offset})

    def partial_channels(self) -> list[str]:
        """Channels that are read in part, and are up to date."""
        return [
            name
            for name, subscription in self.channels.items()
            if not subscription.whole and subscription.recovering is None
        ]

    def send_position(self, channel: str, position: Position) -> None:
        """Say that everything up to a position has been handed over, if that is news, and nothing of it waits."""
        known = self.output.positions.get(channel)
        if (
            known is None
            or known.epoch != position.epoch
            or known.offset >= position.offset
            or self.output.has_queued(channel)
        ):
            return
        self.output.positions[channel] = position
        self.output.send("bus.position", {"channel": channel, "epoch": position.epoch, "offset": position.offset})

    # --- events ----------------------------------------------------------------------------------------------

    def deliver_filtered(self, batch: Batch) -> tuple[int, list[Overflow]]:
        """Events of a channel that this session reads in part, or has had some of already.

        Returns how many it took, and the channels that it has to read again.
        """
        subscription = self.channels[batch.channel]
        taken, behind = 0, []
        for delivery in batch.deliveries:
            record = delivery.record
            if subscription.recovering is not None:
                self._keep(subscription, record)
            elif record.offset > subscription.live_after and subscription.covers(record.topic):
                behind += [overflow for overflow in self.output.deliver_one(delivery) if self.rewind(overflow)]
                taken += 1
        return taken, behind

    def _keep(self, subscription: ChannelSubscription, record: Record) -> None:
        subscription.buffered_bytes += record.size
        if (
            len(subscription.buffered_live) >= self.output.settings.backlog_events
            or subscription.buffered_bytes > self.output.settings.backlog_bytes
        ):
            # Then another reading is needed: one that has them all, since it begins after they came.
            subscription.buffered_live.clear()
            subscription.buffered_bytes = record.size
        if not subscription.buffered_live:
            subscription.buffered_bytes = record.size
        subscription.buffered_live.append(record)
