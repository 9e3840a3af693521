"""The hub: channels and their sessions. Each publication is examined once and delivered to all sessions. No I/O.

Offsets of a channel are contiguous. A publication that does not follow the channel's position means that something was
lost. Then the channel is not live until log and snapshot have been read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from eventbus.protocol.cursor import BEGINNING, Position
from eventbus.protocol.history import History
from eventbus.protocol.records import Publication, Record
from eventbus.protocol.recovery import Resumption, resume
from webui_adapter.channels.channel import Channel
from webui_adapter.channels.overlaps import Overlaps
from webui_adapter.channels.validation import RecordValidator
from webui_adapter.session.batch import Batch, Delivery
from webui_adapter.session.output import Output
from webui_adapter.session.send_queue import Overflow
from webui_adapter.session.session import Session

__all__ = ["Hub"]


class Hub:
    """All channels of one gateway.

    Attributes:
        validator: Rejects events that cannot be delivered.
        channels: The channels by name.
        dirty: Outputs with something to write. They append themselves; the gateway empties the list in each turn.
        behind: Sessions that have to read a channel again, since their send queue overflowed.
        routed: Events since the gateway's last turn: when they were emitted (microseconds since 1970), and to how many
            sessions they went.
        unacknowledged: Events since the gateway's last turn that a client has to acknowledge, with their channel.
        deliveries: How many events went to sessions.
        events: How many events arrived.
        overlaps: The channels to which publications from before a reading may arrive.
    """

    def __init__(
        self,
        validator: RecordValidator | None = None,
        buffer_limit: int = 10_000,
    ) -> None:
        """Begin without a channel.

        Args:
            validator: Rejects undeliverable events; by default those larger than one MiB.
            buffer_limit: How many events of a channel wait while it is recovered.
        """
        self.validator = validator or RecordValidator(1_048_576, Counter())
        self.channels: dict[str, Channel] = {}
        self.dirty: list[Output] = []
        self.behind: list[tuple[Session, str]] = []
        self.routed: list[tuple[int, int]] = []
        self.unacknowledged: list[tuple[str, Record]] = []
        self.deliveries = 0
        self.events = 0
        self._buffer_limit = buffer_limit
        self.overlaps = Overlaps()
        self._newest: Channel | None = None

    def join(self, name: str, session: Session) -> Channel:
        """Add a session that has to be recovered.

        Args:
            name: The channel.
            session: The session.

        Returns:
            The channel. A new one is not live.
        """
        channel = self.channels.get(name)
        if channel is None:
            channel = self.channels[name] = Channel(name)
        channel.whole.pop(session.output, None)
        channel.partial[session] = None
        return channel

    def mark_live(self, name: str, session: Session) -> None:
        """Note that a session has its history: from now on it takes live events.

        Args:
            name: The channel.
            session: The session.
        """
        channel = self.channels.get(name)
        subscription = session.subscriptions.channels.get(name)
        if channel is None or subscription is None or session not in channel.partial:
            return
        if subscription.whole and subscription.recovery is None and subscription.live_after <= channel.offset:
            del channel.partial[session]
            channel.whole[session.output] = session

    def leave(self, name: str, session: Session) -> Channel | None:
        """Take a session out of a channel.

        Args:
            name: The channel.
            session: The session.

        Returns:
            The channel if no session reads it any more; None otherwise.
        """
        channel = self.channels.get(name)
        if channel is None:
            return None
        channel.whole.pop(session.output, None)
        channel.partial.pop(session, None)
        return channel if channel.unused else None

    def remove(self, channel: Channel) -> None:
        """Forget a channel that no session reads.

        Args:
            channel: The channel.
        """
        self.channels.pop(channel.name, None)
        self.overlaps.forget(channel.name)

    def receive(self, name: str, publication: Publication) -> bool:
        """Deliver a publication.

        Args:
            name: The channel.
            publication: Events that followed each other without a hole.

        Returns:
            False if the channel has missed something: it has to be recovered.
        """
        channel = self.channels.get(name)
        if channel is None:
            return True  # unsubscribed while it was on its way
        if channel.buffered is not None:
            self._buffer(channel, publication)
            return True
        epoch, before = publication.epoch, publication.before
        if epoch != channel.epoch and before == 0:
            # The first event of a channel or of a new epoch. Nothing precedes it, so no session missed anything.
            self._begin_epoch(channel, epoch)
            channel.epoch, channel.offset = epoch, 0
        if epoch == channel.epoch and before == channel.offset:
            self._route(channel, publication.records)
            return True
        if epoch == channel.epoch and before < channel.offset:
            if channel.overlaps(before):
                # A recovery has overtaken it. Its later events follow without a hole.
                channel.heard = before + len(publication.records)
                self._route(channel, [record for record in publication.records if record.offset > channel.offset])
                return True
            # Redis counts again from an earlier offset: its data went back in time.
            channel.went_back = True
        self.suspend(channel)
        self._buffer(channel, publication)
        return False

    def redeliver(self, name: str, epoch: str, records: Sequence[Record]) -> None:
        """Deliver events again that were not acknowledged. They move no position.

        Args:
            name: The channel.
            epoch: Their epoch.
            records: The events.
        """
        channel = self.channels.get(name)
        if channel is None or not channel.live or channel.position is None or channel.position.epoch != epoch:
            return
        deliverable = self.validator.deliverable(name, records)
        deliveries = [Delivery(name, record) for record in deliverable if record.offset <= channel.offset]
        for session in self.sessions_of(channel):
            session.subscriptions.redeliver(deliveries)

    def suspend(self, channel: Channel) -> None:
        """Stop delivering until the channel is recovered: publications may have been lost.

        Args:
            channel: The channel.
        """
        if channel.buffered is None:
            channel.buffered = []
            channel.buffered_events = 0

    def recover(self, channel: Channel, history: History, now_ms: int) -> Resumption | None:
        """Recover a channel from a reading. Sessions that miss nothing get the events as if they were live.

        Args:
            channel: The channel.
            history: The reading.
            now_ms: The time in milliseconds since 1970.

        Returns:
            The resumption, whose gap has to be reported to all sessions. None if a newer reading is needed.
        """
        buffered = channel.buffered
        if buffered is None:
            return None
        here = history.position
        live = _since(here, buffered)
        resumption = resume(channel.position, history, live, now_ms)
        # Did a new epoch begin after the reading, or was something lost since?
        new_epoch = bool(buffered) and buffered[-1].epoch != here.epoch
        if new_epoch or (resumption.gap is not None and resumption.gap.reason == "hole"):
            # The next reading begins after these arrived. It has them, or they are lost.
            buffered.clear()
            channel.buffered_events = 0
            return None
        before = channel.position
        channel.buffered = None
        channel.position = resumption.position
        self.overlaps.begin(channel, buffered, 0 if before is None or resumption.gap is not None else before.offset)
        # Kept for new sessions, which need the present state but not the log that a returning session needed.
        present = replace(history, log=(), more=False) if history.log else history
        channel.history = present if resumption.position == here else None
        if before is None:
            # No session is live yet: each gets its own history, and what arrived since.
            if live:
                channel.position = here
                self._route(channel, live)
        elif resumption.gap is None:
            if not before.epoch and here.epoch:
                self._begin_epoch(channel, here.epoch)
            elif before.epoch != here.epoch:
                for session in self.sessions_of(channel):
                    session.subscriptions.continue_epoch(channel.name, Position(here.epoch, before.offset))
            if resumption.records:
                self._deliver(channel, resumption.records)
        return resumption

    def channel_expired(self, channel: Channel) -> None:
        """Note that Redis has forgotten a channel that is live here: its keys have expired, or all data are lost.

        No session has missed anything. The next event is the first one of a new epoch.

        Args:
            channel: The channel.
        """
        for session in self.sessions_of(channel):
            session.subscriptions.end_epoch(channel.name)
        channel.position = BEGINNING
        channel.history = History(BEGINNING, 0, (), ())

    def sessions_of(self, channel: Channel) -> list[Session]:
        """Return all sessions of a channel.

        Args:
            channel: The channel.
        """
        return [*channel.whole.values(), *channel.partial]

    def newest(self) -> tuple[str, Position] | None:
        """Return the channel of the last publication, and its position; None: nothing has arrived."""
        channel = self._newest
        return None if channel is None or not channel.epoch else (channel.name, Position(channel.epoch, channel.offset))

    def _buffer(self, channel: Channel, publication: Publication) -> None:
        assert channel.buffered is not None
        channel.buffered_events += len(publication.records)
        if channel.buffered_events > self._buffer_limit:
            # The log has the dropped events. The remaining publication shows that they are missing.
            channel.buffered.clear()
            channel.buffered_events = len(publication.records)
        channel.buffered.append(publication)

    def _begin_epoch(self, channel: Channel, epoch: str) -> None:
        for session in self.sessions_of(channel):
            session.subscriptions.begin_epoch(channel.name, epoch)

    def _route(self, channel: Channel, records: Sequence[Record]) -> None:
        if records:
            channel.offset = records[-1].offset
            self._newest = channel
            channel.history = None
            self._deliver(channel, records)

    def _deliver(self, channel: Channel, records: Sequence[Record]) -> None:
        records = self.validator.deliverable(channel.name, records)
        if not records:
            return
        batch = Batch(channel.name, records)
        count = len(records)
        overflowed: list[tuple[Session, Sequence[Overflow]]] | None = None
        for output in channel.whole:
            overflows = output.deliver(batch)
            if overflows:
                overflowed = [*(overflowed or ()), (channel.whole[output], overflows)]
        if overflowed is not None:
            self._rewind(overflowed)
        each, rest = len(channel.whole), 0
        if channel.partial:
            # A partial reader takes some events of a batch. Their number is counted, not which ones they are.
            more, rest = divmod(self._deliver_partial(channel, batch), count)
            each += more
        self.events += count
        self.deliveries += each * count + rest
        for record in records:
            self.routed.append((record.emitted, each + (rest > 0)))
            rest -= 1
            if record.ack:
                self.unacknowledged.append((channel.name, record))

    def _rewind(self, overflowed: Sequence[tuple[Session, Sequence[Overflow]]]) -> None:
        for session, overflows in overflowed:
            self._note_behind(session, [overflow for overflow in overflows if session.subscriptions.rewind(overflow)])

    def _note_behind(self, session: Session, behind: Sequence[Overflow]) -> None:
        for overflow in behind:
            self.join(overflow.channel, session)
            self.behind.append((session, overflow.channel))

    def _deliver_partial(self, channel: Channel, batch: Batch) -> int:
        taken = 0
        for session in list(channel.partial):
            count, behind = session.subscriptions.deliver_filtered(batch)
            taken += count
            self._note_behind(session, behind)
            self.mark_live(channel.name, session)
        return taken


def _since(here: Position, publications: Sequence[Publication]) -> list[Record]:
    return [
        record
        for publication in publications
        if publication.epoch == here.epoch
        for record in publication.records
        if record.offset > here.offset
    ]
