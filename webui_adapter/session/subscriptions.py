"""What one connection follows: its channels, the past that is handed over, and how far it has been told. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from eventbus.protocol.cursor import Cursor, Position
from eventbus.protocol.records import Record
from eventbus.protocol.recovery import Resumption
from eventbus.protocol.topics import channel_of, whole_channel
from webui_adapter.clock import Clock
from webui_adapter.protocol.close_codes import CloseCode
from webui_adapter.protocol.commands import Subscribe
from webui_adapter.session.batch import Batch, Delivery
from webui_adapter.session.channel_view import ChannelSubscription, covered
from webui_adapter.session.output import Encoder, Output
from webui_adapter.settings import GatewaySettings

__all__ = ["Subscriptions"]


class Subscriptions(Output):
    """What one connection reads of its channels.

    Attributes:
        views: what it reads, by channel.
        asked: subscriptions that wait for the authoriser.
    """

    __slots__ = ("asked", "views")

    def __init__(
        self,
        settings: GatewaySettings,
        framing: Encoder,
        dirty: list[Output],
        counters: Counter[str],
        clock: Clock,
    ) -> None:
        super().__init__(settings, framing, dirty, counters, clock)
        self.views: dict[str, ChannelSubscription] = {}
        self.asked: list[Subscribe] = []

    # --- patterns --------------------------------------------------------------------------------------------

    def topics(self) -> set[str]:
        """Patterns in all channels, those that still wait for something included."""
        views = self.views.values()
        waiting = [command for view in views for command in view.waiting]
        return {pattern for view in views for pattern in view.patterns} | {c.topic for c in (*waiting, *self.asked)}

    def watch(self, command: Subscribe, here: int) -> ChannelSubscription:
        """Add a pattern; live events of its channel are buffered until ``replay``.

        ``here`` is the offset up to which live events have been handed to the sessions of this channel. What an
        earlier pattern has brought is not brought again, unless this one asks for it by ``since``.
        """
        channel = channel_of(command.topic)
        view = self.views.get(channel)
        if view is None:
            view = self.views[channel] = ChannelSubscription()
        else:
            view.delivered = here
        view.bringing = command
        if command.since is not None:
            view.requested = command.since
        view.patterns[command.topic] = None
        view.whole = whole_channel(channel) in view.patterns
        return view

    def unwatch(self, pattern: str) -> ChannelSubscription | None:
        """Take a pattern away; the view if it was the last one there."""
        self.asked = [command for command in self.asked if command.topic != pattern]
        channel = channel_of(pattern)
        view = self.views.get(channel)
        if view is None:
            return None
        view.waiting = [command for command in view.waiting if command.topic != pattern]
        view.patterns.pop(pattern, None)
        view.settled = tuple(settled for settled in view.settled if settled != pattern)
        view.whole = whole_channel(channel) in view.patterns
        if view.patterns:
            return None
        del self.views[channel]
        self._void(channel, "unsubscribed")
        return view

    # --- the past --------------------------------------------------------------------------------------------

    def replay(self, channel: str, resumption: Resumption, kept: Resumption | None) -> None:
        """Hand over what ``resume`` found for the subscription that waits for it; only to an idle session.

        ``kept`` is the same for those that were settled before: what has come for them meanwhile.
        """
        view = self.views[channel]
        command = view.bringing
        assert command is not None
        records = {record.offset: record for record in resumption.records if view.is_for(command, record)}
        start, gap = resumption.start, resumption.gap
        if kept is not None:
            records |= {record.offset: record for record in kept.records if covered(view.settled, record.topic)}
            start, gap = min(start, kept.start, key=lambda position: position.offset), gap or kept.gap
        whole = Resumption(start, [records[offset] for offset in sorted(records)], resumption.position, gap)
        if resumption.more:
            # A page of it: the next one when the browser has taken this.
            view.bringing = replace(command, since=resumption.position, ref=None)
            if view.settled:
                view.delivered = resumption.position.offset
            self._bring(channel, view, whole, "resumed", list(view.patterns), command.ref)
            return
        view.bringing = None
        view.replaying = []
        view.settled = tuple(view.patterns)
        view.skip_to = resumption.position.offset
        how = "gap" if gap else "snapshot" if command.since is None else "resumed"
        self._bring(channel, view, whole, how, list(view.patterns), command.ref)

    def _hand_owed(self, channel: str, view: ChannelSubscription, start: int) -> set[int]:
        """What the user is owed, before the rest of the channel: out of its order, so under a hold. Its offsets."""
        owed, view.owed = view.owed, None
        wanted = [] if owed is None else [record for record in owed.records if view.wants(record.topic)]
        if wanted:
            self.holds[channel] = start
            self.say("bus.hold", {"channel": channel, "offset": start})
            for record in wanted:
                self._write(self.framing.event(self, Delivery(channel, record)))
            del self.holds[channel]
            self.say("bus.release", {"channel": channel, "offset": start})
        return {record.offset for record in wanted}

    def take_again(self, deliveries: Sequence[Delivery]) -> None:
        """Events that nobody has acknowledged in time. Who is slow has them waiting, or will read them."""
        for delivery in deliveries:
            view = self.views.get(delivery.channel)
            if self.idle and view is not None and view.bringing is None and view.wants(delivery.topic):
                self._write(self.framing.event(self, delivery))

    def interrupt(self, channel: str, resumption: Resumption) -> None:
        """The whole channel has lost events: say so and begin anew from its present state."""
        view = self.views[channel]
        self._void(channel, "gap")
        if view.settled:
            view.delivered = resumption.position.offset
            records = [record for record in resumption.records if covered(view.settled, record.topic)]
            self._bring(channel, view, replace(resumption, records=records), "gap", list(view.settled), None)
        if view.bringing is None:
            view.skip_to = resumption.position.offset
        else:
            view.replaying.clear()  # it waits for a reading of its own, which what came before would not fit

    def forget_past(self, channel: str) -> None:
        """The life of a channel has ended in Redis, and nothing of it was missed: what comes next is of another one."""
        view = self.views[channel]
        if self.waits(channel) or (view.settled and view.replaying):
            # It would come after the next life has begun, and be taken for that one's.
            self.close(CloseCode.TOO_SLOW, "the channel begins anew, and this was behind; resume with the cursor")
        view.skip_to = 0
        view.delivered = 0
        view.replaying.clear()

    def adopt(self, channel: str, epoch: str) -> None:
        """A channel begins a life, and this session has missed nothing: the epoch belongs to the page's cursor."""
        self.forget_past(channel)
        view = self.views[channel]
        if view.bringing is None:
            view.position = Position(epoch, 0)
            where = {"channel": channel, "epoch": epoch, "offset": 0}
            self.say("bus.subscribed", {**where, "how": "resumed", "topics": list(view.patterns)})

    def is_behind(self, channel: str) -> bool:
        """See ``Output``."""
        view = self.views.get(channel)
        return view is not None and view.bringing is not None

    def set_back(self, channel: str, offset: int) -> bool:
        """See ``fall_behind``: the page has everything below what waited, and goes on from there. False: not needed."""
        view = self.views.get(channel)
        if view is None or view.bringing is not None or view.position is None:
            return False
        waiting = None if self.backlog is None else self.backlog.first(channel)
        safe = min(offset, offset if waiting is None else waiting) - 1
        self._void(channel, "behind")
        self.counters["behind"] += 1
        since = Position(view.position.epoch, safe)
        view.position = since
        view.bringing = Subscribe(next(iter(view.patterns)), since)
        view.settled, view.delivered = tuple(view.patterns), safe
        view.replaying.clear()
        return True

    def _void(self, channel: str, reason: str) -> None:
        """What waits of a channel is not to be sent any more."""
        if self.backlog is not None:
            self.counters[f"drop.{reason}"] += self.backlog.discard(channel)
        held = self.holds.pop(channel, None)
        if held is not None:
            self.say("bus.release", {"channel": channel, "offset": held})

    def _bring(
        self,
        channel: str,
        view: ChannelSubscription,
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
            self.counters[f"gap.{whole.gap.reason}"] += 1
            self.say("bus.gap", {**where, "offset": end.offset, "reason": whole.gap.reason})
        self.counters[f"resume.{how}"] += 1
        answer = {} if ref is None else {"ref": ref}
        self.say("bus.subscribed", {**where, "offset": start.offset, "how": how, "topics": topics, **answer})
        view.position = start
        handed = self._hand_owed(channel, view, start.offset)
        for record in whole.records:
            if record.offset in handed or not record.event:
                continue
            delivery = Delivery(channel, record)
            self._advance(delivery)
            self._write(self.framing.event(self, delivery))
        view.position = end
        self.say("bus.position", {**where, "offset": end.offset})

    def narrow(self) -> list[str]:
        """Channels that are read in part, and are up to date."""
        return [name for name, view in self.views.items() if not view.whole and view.bringing is None]

    def tell_position(self, channel: str, position: Position) -> None:
        """Say that everything up to a position has been handed over, if that is news, and nothing of it waits."""
        view = self.views[channel]
        known = view.position
        if known is None or known.epoch != position.epoch or known.offset >= position.offset or self.waits(channel):
            return
        view.position = position
        self.say("bus.position", {"channel": channel, "epoch": position.epoch, "offset": position.offset})

    def cursor(self) -> Cursor:
        """Where this session is in all of its channels; while one is on hold, the offset that is safe."""
        cursor: Cursor = {}
        for channel, view in self.views.items():
            if view.position is not None:
                cursor[channel] = Position(view.position.epoch, self.holds.get(channel, view.position.offset))
            elif view.requested is not None:
                cursor[channel] = view.requested
        return cursor

    # --- events ----------------------------------------------------------------------------------------------

    def take_some(self, batch: Batch) -> int:
        """Events of a channel that this session reads in part, or has had some of already. Returns how many it took."""
        view = self.views[batch.channel]
        taken = 0
        for delivery in batch.deliveries:
            record = delivery.record
            if view.bringing is not None:
                self._keep(view, record)
            elif record.offset > view.skip_to and view.wants(record.topic):
                self._deliver(delivery)
                taken += 1
        return taken

    def _keep(self, view: ChannelSubscription, record: Record) -> None:
        view.kept += record.size
        if len(view.replaying) >= self.settings.backlog_events or view.kept > self.settings.backlog_bytes:
            # Then another reading is needed: one that has them all, since it begins after they came.
            view.replaying.clear()
            view.kept = record.size
        if not view.replaying:
            view.kept = record.size
        view.replaying.append(record)

    def _advance(self, delivery: Delivery) -> None:
        view = self.views.get(delivery.channel)
        if view is not None and view.position is not None and delivery.record.offset > view.position.offset:
            view.position = Position(view.position.epoch, delivery.record.offset)
