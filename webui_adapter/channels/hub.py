"""Channels and who reads them: every publication is looked at once, and handed to all its sessions. No I/O.

A channel's position here is the gateway's: offsets are contiguous, so a publication that does not follow it means that
something was lost, and the channel is on repair until log and snapshot have been read.
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
from webui_adapter.channels.validation import RecordValidator
from webui_adapter.session.batch import Batch, Delivery
from webui_adapter.session.output import Output, Overflow
from webui_adapter.session.session import Session

__all__ = ["Hub"]


class Hub:
    """All channels of one gateway.

    Attributes:
        dirty: sessions with something to write, filled by them, emptied by the edge once per turn.
        sieve: what can be delivered to nobody does not get past it.
        behind: sessions that have to read a channel again, filled by them, emptied by the edge.
        routed: events handed on since the edge last looked: when they were emitted (microseconds since 1970), and to
            how many sessions.
        owing: channel and record of events handed on that somebody has to acknowledge, since the edge last looked.
        deliveries: events handed to sessions, ever.
        events: events received, ever.
    """

    def __init__(
        self,
        validator: RecordValidator | None = None,
        buffer_limit: int = 10_000,
    ) -> None:
        """``buffer_limit``: events of a channel that wait for its repair."""
        self.validator = validator or RecordValidator(1_048_576, Counter())
        self.channels: dict[str, Channel] = {}
        self.dirty: list[Output] = []
        self.behind: list[tuple[Session, str]] = []
        self.routed: list[tuple[int, int]] = []
        self.unacknowledged: list[tuple[str, Record]] = []
        self.deliveries = 0
        self.events = 0
        self._buffer_limit = buffer_limit

    def join(self, name: str, session: Session) -> Channel:
        """Add a session that is to be brought up to date; a new channel begins on repair."""
        channel = self.channels.get(name)
        if channel is None:
            channel = self.channels[name] = Channel(name)
        channel.whole.pop(session.output, None)
        channel.partial[session] = None
        return channel

    def mark_live(self, name: str, session: Session) -> None:
        """The session has had its history: from now on it takes what comes."""
        channel = self.channels.get(name)
        subscription = session.subscriptions.channels.get(name)
        if channel is None or subscription is None or session not in channel.partial:
            return
        if subscription.whole and subscription.recovery is None and subscription.live_after <= channel.offset:
            del channel.partial[session]
            channel.whole[session.output] = session

    def leave(self, name: str, session: Session) -> Channel | None:
        """Take a session out; the channel if nobody is left."""
        channel = self.channels.get(name)
        if channel is None:
            return None
        channel.whole.pop(session.output, None)
        channel.partial.pop(session, None)
        return channel if channel.unused else None

    def remove(self, channel: Channel) -> None:
        """Forget a channel that nobody reads."""
        self.channels.pop(channel.name, None)

    def receive(self, name: str, publication: Publication) -> bool:
        """Hand a publication on. False: the channel has missed something and is on repair."""
        channel = self.channels.get(name)
        if channel is None:
            return True  # unsubscribed while it was on its way
        if channel.buffered is not None:
            self._buffer(channel, publication)
            return True
        epoch, before = publication.epoch, publication.before
        if epoch != channel.epoch and before == 0:
            # The very first event of a channel that people were already waiting at, or of a new life of it: nothing
            # stood between that and what they have, so nobody has missed anything.
            self._adopt(channel, epoch)
            channel.epoch, channel.offset = epoch, 0
        if epoch == channel.epoch and before == channel.offset:
            self._route(channel, publication.records)
            return True
        if epoch == channel.epoch and before < channel.offset:
            # A repair has overtaken it; what it holds beyond that follows without a hole.
            self._route(channel, [record for record in publication.records if record.offset > channel.offset])
            return True
        self.suspend(channel)
        self._buffer(channel, publication)
        return False

    def redeliver(self, name: str, epoch: str, records: Sequence[Record]) -> None:
        """Hand on what was published before and not acknowledged: it moves nobody's position."""
        channel = self.channels.get(name)
        if channel is None or not channel.live or channel.position is None or channel.position.epoch != epoch:
            return
        deliverable = self.validator.deliverable(name, records)
        deliveries = [Delivery(name, record) for record in deliverable if record.offset <= channel.offset]
        for session in self.sessions_of(channel):
            session.subscriptions.redeliver(deliveries)

    def suspend(self, channel: Channel) -> None:
        """Put a channel on repair: what was published meanwhile may not have come."""
        if channel.buffered is None:
            channel.buffered = []
            channel.buffered_events = 0

    def recover(self, channel: Channel, history: History, now_ms: int) -> Resumption | None:
        """Bring a channel up to date from a reading of it; None if another, newer reading is needed.

        Without a gap, what was missing goes the ordinary way and nobody notices. With one, the sessions are to be told:
        see ``sessions_of``.
        """
        buffered = channel.buffered
        if buffered is None:
            return None
        here = history.position
        live = _since(here, buffered)
        resumption = resume(channel.position, history, live, now_ms)
        # Was the channel born (anew) between the reading and now, or did something get lost since?
        reborn = bool(buffered) and buffered[-1].epoch != here.epoch
        if reborn or (resumption.gap is not None and resumption.gap.reason == "hole"):
            # The next reading begins after these came, so it has them, or they are gone for good.
            buffered.clear()
            channel.buffered_events = 0
            return None
        before = channel.position
        channel.buffered = None
        channel.position = resumption.position
        # Kept for newcomers, who want the present: a past that was read for one who came back is not.
        present = replace(history, log=(), more=False) if history.log else history
        channel.history = present if resumption.position == here else None
        if before is None:
            # Nobody is up to date yet: each session gets its own history, and what came since.
            if live:
                channel.position = here
                self._route(channel, live)
        elif resumption.gap is None:
            if not before.epoch and here.epoch:
                self._adopt(channel, here.epoch)
            if resumption.records:
                self._hand_on(channel, resumption.records)
        return resumption

    def channel_expired(self, channel: Channel) -> None:
        """Redis no longer knows this channel, which is live here: its keys have expired, or all data are lost.

        Nothing was missed: its next event is the first one of a new life.
        """
        for session in self.sessions_of(channel):
            session.subscriptions.end_epoch(channel.name)
        channel.position = BEGINNING
        channel.history = History(BEGINNING, 0, (), ())

    def sessions_of(self, channel: Channel) -> list[Session]:
        """All that read a channel."""
        return [*channel.whole.values(), *channel.partial]

    def _buffer(self, channel: Channel, publication: Publication) -> None:
        assert channel.buffered is not None
        channel.buffered_events += len(publication.records)
        if channel.buffered_events > self._buffer_limit:
            # What is let go is in the log; that it is missing here shows by the one that stays.
            channel.buffered.clear()
            channel.buffered_events = len(publication.records)
        channel.buffered.append(publication)

    def _adopt(self, channel: Channel, epoch: str) -> None:
        for session in self.sessions_of(channel):
            session.subscriptions.begin_epoch(channel.name, epoch)

    def _route(self, channel: Channel, records: Sequence[Record]) -> None:
        if records:
            channel.offset = records[-1].offset
            channel.history = None
            self._hand_on(channel, records)

    def _hand_on(self, channel: Channel, records: Sequence[Record]) -> None:
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
            # Who reads in part takes some of a batch: which ones is not worth counting, how many is.
            more, rest = divmod(self._hand_on_partial(channel, batch), count)
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
            self._read_again(session, [overflow for overflow in overflows if session.subscriptions.rewind(overflow)])

    def _read_again(self, session: Session, behind: Sequence[Overflow]) -> None:
        for overflow in behind:
            self.join(overflow.channel, session)
            self.behind.append((session, overflow.channel))

    def _hand_on_partial(self, channel: Channel, batch: Batch) -> int:
        taken = 0
        for session in list(channel.partial):
            count, behind = session.subscriptions.deliver_filtered(batch)
            taken += count
            self._read_again(session, behind)
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
