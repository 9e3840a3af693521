"""The channels that one connection reads: the history it gets, and the live events after that. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from eventbus.protocol.cursor import Position
from eventbus.protocol.recovery import Resumption
from eventbus.protocol.topics import channel_of
from webui_adapter.protocol.close_codes import CloseCode
from webui_adapter.protocol.commands import Subscribe
from webui_adapter.session.batch import Batch, Delivery
from webui_adapter.session.channel_subscription import ChannelSubscription, covered
from webui_adapter.session.output import Output
from webui_adapter.session.send_queue import Overflow

__all__ = ["Subscriptions"]


class Subscriptions:
    """The channels that one connection reads.

    Attributes:
        output: What is written to the connection.
        channels: What it reads, by channel.
        awaiting_authorisation: Subscribe commands that wait for the authoriser.
    """

    __slots__ = ("awaiting_authorisation", "channels", "output")

    def __init__(self, output: Output) -> None:
        """Begin without a channel.

        Args:
            output: What is written to the connection.
        """
        self.output = output
        self.channels: dict[str, ChannelSubscription] = {}
        self.awaiting_authorisation: list[Subscribe] = []

    # --- topics ----------------------------------------------------------------------------------------------

    def topics(self) -> set[str]:
        """Return the topics of all channels, with those that still wait."""
        channels = self.channels.values()
        waiting = [*self.awaiting_authorisation]
        for subscription in channels:
            waiting += subscription.queued_commands
        subscribed = {pattern for subscription in channels for pattern in subscription.patterns}
        return subscribed | {command.topic for command in waiting}

    def add(self, command: Subscribe, here: int) -> ChannelSubscription:
        """Add a topic. Live events of its channel are buffered until ``replay``.

        Args:
            command: The subscribe command. Its channel is live or new to this session.
            here: The offset up to which the sessions of this channel have the live events.

        Returns:
            The session's subscription to the channel.
        """
        channel = channel_of(command.topic)
        subscription = self.channels.get(channel)
        if subscription is None:
            subscription = self.channels[channel] = ChannelSubscription(command)
        else:
            subscription.subscribe(command, here)
        if command.since is not None:
            self.output.positions.setdefault(channel, command.since)
        return subscription

    def remove(self, pattern: str) -> ChannelSubscription | None:
        """Remove a topic.

        Args:
            pattern: The topic, as subscribed.

        Returns:
            The subscription to the channel if this was its last topic; None otherwise.
        """
        self.awaiting_authorisation = [command for command in self.awaiting_authorisation if command.topic != pattern]
        channel = channel_of(pattern)
        subscription = self.channels.get(channel)
        if subscription is None:
            return None
        subscription.unsubscribe(pattern)
        if subscription.patterns:
            return None
        self.drop(channel)
        self.output.discard(channel, "unsubscribed")
        return subscription

    def drop(self, channel: str) -> None:
        """Forget a channel.

        Args:
            channel: The channel.
        """
        self.channels.pop(channel, None)
        self.output.positions.pop(channel, None)

    # --- history ---------------------------------------------------------------------------------------------

    def replay(self, channel: str, found: Resumption, for_recovered: Resumption | None) -> None:
        """Deliver a reading of the history. Only for an idle output: a history does not fit the send queue.

        Args:
            channel: The channel, which is being recovered.
            found: The result of ``resume`` for the subscribe command.
            for_recovered: Its result for the topics that the client had before; None if there are none.
        """
        subscription = self.channels[channel]
        assert subscription.recovery is not None
        command = subscription.recovery.command
        history = subscription.take_history(found, for_recovered)
        how = "gap" if history.gap else "snapshot" if command.since is None else "resumed"
        self._write_history(channel, history, how, subscription.patterns, command.ref)

    def restart_after_gap(self, channel: str, resumption: Resumption) -> None:
        """Deliver the present state of a channel that has lost events, after ``bus.gap``.

        Args:
            channel: The channel.
            resumption: Its present state.
        """
        subscription = self.channels[channel]
        self.output.discard(channel, "gap")
        topics = subscription.recovered_topics
        if topics:
            records = [record for record in resumption.records if covered(topics, record.topic)]
            self._write_history(channel, replace(resumption, records=records), "gap", topics, None)
        subscription.restart(resumption.position)

    def end_epoch(self, channel: str) -> None:
        """Note that Redis has forgotten a channel, and that the session has missed nothing of it.

        Args:
            channel: The channel. Its next event begins another epoch.
        """
        subscription = self.channels[channel]
        recovery = subscription.recovery
        if self.output.has_queued(channel) or (recovery and recovery.recovered_topics and recovery.buffered_live):
            # These events would follow the beginning of the next epoch, and the client would count them to it.
            reason = "the channel begins anew, and this was behind; resume with the cursor"
            self.output.close(CloseCode.TOO_SLOW, reason)
        subscription.end_epoch()

    def begin_epoch(self, channel: str, epoch: str) -> None:
        """Note that a channel begins an epoch, and that the session has missed nothing.

        Args:
            channel: The channel.
            epoch: The new epoch, which belongs to the client's cursor from now on.
        """
        self.end_epoch(channel)
        subscription = self.channels[channel]
        if subscription.recovery is None:
            self.output.positions[channel] = Position(epoch, 0)
            where = {"channel": channel, "epoch": epoch, "offset": 0}
            self.output.send("bus.subscribed", {**where, "how": "resumed", "topics": list(subscription.patterns)})

    def continue_epoch(self, channel: str, position: Position) -> None:
        """Note that an epoch continues another one. Up to this position the events and their offsets are the same.

        Args:
            channel: The channel.
            position: The end of the channel's live events, in the new epoch.
        """
        subscription, output = self.channels[channel], self.output
        topics = subscription.recovered_topics
        if not topics:
            return  # the answer to the first command names the epoch
        offset = position.offset if subscription.recovery is None else subscription.recovery.delivered_offset
        offset = output.safe_offset(channel, offset + 1)
        output.positions[channel] = Position(position.epoch, offset)
        where = {"channel": channel, "epoch": position.epoch, "offset": offset}
        output.send("bus.subscribed", {**where, "how": "resumed", "topics": list(topics)})

    def rewind(self, overflow: Overflow) -> bool:
        """Read a channel again from what the client has, since the send queue has no room.

        Args:
            overflow: The channel and the offset up to which the client has everything.

        Returns:
            Whether the channel has to be read; False if that is under way already.
        """
        channel, output = overflow.channel, self.output
        subscription, position = self.channels.get(channel), output.positions.get(channel)
        if subscription is None or position is None or not subscription.recovered_topics:
            return False
        output.discard(channel, "behind")
        output.counters["behind"] += 1
        since = output.positions[channel] = Position(position.epoch, overflow.offset)
        return subscription.overflow(since)

    def _write_history(
        self, channel: str, history: Resumption, how: str, topics: Sequence[str], ref: str | float | None
    ) -> None:
        """Write events and the control events around them, past the send queue: the log bounds a history."""
        output, start, end = self.output, history.start, history.position
        where = {"channel": channel, "epoch": end.epoch}
        if history.gap is not None:
            output.counters[f"gap.{history.gap.reason}"] += 1
            output.send("bus.gap", {**where, "offset": end.offset, "reason": history.gap.reason})
        output.counters[f"resume.{how}"] += 1
        answer = {} if ref is None else {"ref": ref}
        output.send("bus.subscribed", {**where, "offset": start.offset, "how": how, "topics": list(topics), **answer})
        output.positions[channel] = start
        delivered = self._write_pending(channel, start.offset)
        # A position ends the present state. Live events follow it, which may be copies from another epoch.
        live_after = history.read_to if how != "resumed" else end.offset
        for record in history.records:
            if record.offset > live_after:
                output.send("bus.position", {**where, "offset": live_after})
                live_after = end.offset
            if record.event and record.offset not in delivered:
                output.write_event(Delivery(channel, record))
        output.positions[channel] = end
        output.send("bus.position", {**where, "offset": end.offset})

    def _write_pending(self, channel: str, start: int) -> set[int]:
        """Write the user's pending events, out of the channel's order. Return their offsets."""
        subscription = self.channels[channel]
        pending, subscription.pending = subscription.pending, None
        if pending is None:
            return set()
        records = [record for record in pending.records if subscription.covers(record.topic)]
        if records:
            self.output.hold(channel, start)
            for record in records:
                self.output.write_event(Delivery(channel, record), in_order=False)
            self.output.release(channel, start)
        return {record.offset for record in records}

    # --- live events -----------------------------------------------------------------------------------------

    def deliver_filtered(self, batch: Batch) -> tuple[int, Sequence[Overflow]]:
        """Deliver events of a channel that this session reads in part, or recovers.

        Args:
            batch: Events of one channel.

        Returns:
            How many events the session took, and the channels that it has to read again.
        """
        subscription = self.channels[batch.channel]
        taken, behind = 0, []
        for delivery in batch.deliveries:
            record = delivery.record
            if subscription.recovery is not None:
                settings = self.output.settings
                subscription.recovery.buffer(record, settings.backlog_events, settings.backlog_bytes)
            elif record.offset > subscription.live_after and subscription.covers(record.topic):
                behind += [overflow for overflow in self.output.deliver_one(delivery) if self.rewind(overflow)]
                taken += 1
        return taken, behind

    def redeliver(self, deliveries: Sequence[Delivery]) -> None:
        """Deliver events again that the user has not acknowledged in time. A slow client still has them queued.

        Args:
            deliveries: Events that were delivered before.
        """
        for delivery in deliveries:
            subscription = self.channels.get(delivery.channel)
            if subscription is None or subscription.recovery is not None or not self.output.idle:
                continue
            if subscription.covers(delivery.topic):
                self.output.write_event(delivery, in_order=False)

    # --- positions -------------------------------------------------------------------------------------------

    def partial_channels(self) -> list[str]:
        """Return the channels that are read in part and are live."""
        return [name for name, one in self.channels.items() if not one.whole and one.recovery is None]

    def send_position(self, channel: str, position: Position) -> None:
        """Send ``bus.position`` if it is news to the client and nothing of the channel waits.

        Args:
            channel: The channel.
            position: Everything up to here has been delivered.
        """
        known = self.output.positions.get(channel)
        if known is None or known.epoch != position.epoch or known.offset >= position.offset:
            return
        if not self.output.has_queued(channel):
            self.output.positions[channel] = position
            where = {"channel": channel, "epoch": position.epoch, "offset": position.offset}
            self.output.send("bus.position", where)
