"""Redelivery: which pending events the users of this gateway have, and when Redis is asked to publish them again.

Redis decides what is pending (``_pending.lua``). This gateway only keeps which ids to ask about, and when. An id too
many costs a question.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from eventbus.backends.pending import PendingBatch, PendingStore
from eventbus.errors import InvalidRecord, TransportError, Unavailable
from eventbus.protocol.records import Record
from webui_adapter.context import GatewayContext
from webui_adapter.errors import CommandRefused
from webui_adapter.protocol.commands import Ack
from webui_adapter.session.session import Session

__all__ = ["RedeliveryScheduler"]

log = logging.getLogger(__name__)

_TICK = 0.5
_BATCH = 100
_RETRY_MS = 2_000


class RedeliveryScheduler:
    """Keeps the pending events of one gateway's connected users, and redelivers them."""

    def __init__(
        self,
        context: GatewayContext,
        pending_store: PendingStore,
        ack_timeout: float,
    ) -> None:
        """Begin without a pending event.

        Args:
            context: The gateway's clock, counters and background tasks.
            pending_store: The pending events in Redis.
            ack_timeout: After how many seconds without an acknowledgement to ask Redis about an event.
        """
        self._pending_store = pending_store
        self._clock = context.clock
        self._ack_timeout = ack_timeout
        self._counters = context.counters
        self._read_only = context.read_only
        self._spawn = context.spawn
        self._flush = context.flush
        # Channel -> id -> when to ask about it. Channels of connected users only.
        self._pending: dict[str, dict[str, float]] = {}
        # The same for channels that were not read yet. These events may be newer than the reading.
        self._unread: dict[str, dict[str, float]] = {}
        # The channels of ``_pending`` that may have ids. Nearly all have none, and are not examined in each round.
        self._may_have_pending: set[str] = set()
        # Channel -> ids of the part that was fetched last, for lists that are too long for one answer.
        self._parts: dict[str, set[str]] = {}

    # --- pending events ----------------------------------------------------------------------------------------------

    def has_none(self, channel: str) -> bool:
        """Return whether the user of a channel is known to have no pending events.

        Args:
            channel: The channel.
        """
        return self._pending.get(channel) == {} and channel not in self._parts

    def channel_read(self, channel: str, *, pending: bool) -> None:
        """Note that a channel was read.

        Args:
            channel: The channel.
            pending: The reading says that its user may have pending events. Most users have none.
        """
        if not pending:
            self._known(channel)  # events that arrived before the reading are known
        elif self.has_none(channel):
            # It became pending during a gap, and the log may not have it any more. Fetched events are redelivered.
            self.forget(channel)
            self._spawn(self._learn(channel))

    async def _learn(self, channel: str) -> None:
        try:
            await self.fetch(channel)
        except (TransportError, InvalidRecord) as error:
            log.warning("cannot read pending events of %s: %s", channel, error)
            self.forget(channel)  # the next session fetches them

    async def fetch(self, channel: str) -> PendingBatch:
        """Fetch the pending events of a channel's user.

        Args:
            channel: The channel.

        Returns:
            The events, or the first part of them.

        Raises:
            Unavailable: Redis cannot be reached.
            Refused: Redis refuses the command.
            InvalidRecord: An event cannot be read.
        """
        pending = await self._pending_store.fetch(channel)
        due = self._clock.now() + self._ack_timeout
        known = self._known(channel)
        for record in pending.records:
            known.setdefault(record.id, due)
        self._may_have_pending.add(channel)
        self._note_part(channel, pending)
        return pending

    def _note_part(self, channel: str, pending: PendingBatch) -> None:
        if pending.more:
            self._parts[channel] = {record.id for record in pending.records}
        else:
            self._parts.pop(channel, None)

    def _known(self, channel: str) -> dict[str, float]:
        """Return the ids of a channel whose pending events are known from now on."""
        self._may_have_pending.add(channel)  # the next round drops it if it has none
        return self._pending.setdefault(channel, self._unread.pop(channel, {}))

    def track(self, channel: str, record: Record) -> None:
        """Note an event that has just gone to sessions and waits for an acknowledgement.

        Args:
            channel: The channel.
            record: The event.
        """
        known = self._pending.get(channel)
        if known is None:
            known = self._unread.setdefault(channel, {})
        else:
            self._may_have_pending.add(channel)
        known[record.id] = self._clock.now() + self._ack_timeout

    def forget(self, channel: str) -> None:
        """Forget a channel that no session here reads.

        Args:
            channel: The channel.
        """
        self._pending.pop(channel, None)
        self._unread.pop(channel, None)
        self._may_have_pending.discard(channel)
        self._parts.pop(channel, None)

    # --- acknowledgements ------------------------------------------------------------------------------------

    def ack(self, session: Session, command: Ack) -> None:
        """Begin to acknowledge events. The session gets the answer when Redis has the acknowledgement.

        Args:
            session: The session.
            command: The command.
        """
        reason = self._read_only()
        if reason is not None:
            session.refuse(_read_only(reason, command))
            return
        self._spawn(self._ack(session, command))

    async def _ack(self, session: Session, command: Ack) -> None:
        assert session.principal is not None
        channel = f"user:{session.principal.user}"
        try:
            if command.upto is None:
                acked = await self._pending_store.ack(channel, command.ids)
            else:
                acked = await self._pending_store.ack_upto(channel, command.upto)
        except TransportError as error:
            session.refuse(_read_only(str(error), command))
        else:
            for known in (self._pending.get(channel, {}), self._unread.get(channel, {})):
                for id_ in command.ids:
                    known.pop(id_, None)
            self._counters["acked"] += acked
            session.answer(command.ref, acked=acked)
        self._flush()

    # --- redelivery -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Redeliver due events, as long as the gateway lives."""
        while True:
            await asyncio.sleep(_TICK)
            if self._read_only() is None:
                try:
                    await self._fetch_next_parts()
                    await self._redeliver_due()
                except Exception:
                    # A loop that has ended would redeliver no event to any user.
                    log.exception("cannot redeliver pending events")

    async def _fetch_next_parts(self) -> None:
        """Fetch the next part of a long list when the part before is acknowledged or dead. It is due immediately."""
        for channel, ids in list(self._parts.items()):
            if not ids.isdisjoint(self._pending.get(channel, ())):
                continue
            try:
                pending = await self._pending_store.fetch(channel)
            except (TransportError, InvalidRecord) as error:
                log.info("cannot read more pending events of %s yet: %s", channel, error)
                continue
            if channel not in self._parts:
                continue  # the last session has gone meanwhile
            known, now = self._known(channel), self._clock.now()
            known.update((record.id, now) for record in pending.records if record.id not in known)
            self._note_part(channel, pending)

    async def _redeliver_due(self) -> None:
        now = self._clock.now()
        for channel in list(self._may_have_pending):
            known = self._pending.get(channel)
            if not known:
                self._may_have_pending.discard(channel)
                continue
            ids = [id_ for id_, due in known.items() if due <= now][:_BATCH]
            if ids:
                try:
                    await self._redeliver(channel, ids)
                except (TransportError, InvalidRecord) as error:
                    log.info("cannot redeliver pending events of %s yet: %s", channel, error)
                    if isinstance(error, Unavailable):
                        return
                    # Only this channel fails: the others do not wait for it.
                    known.update((id_, now + _RETRY_MS / 1000) for id_ in ids if id_ in known)

    async def _redeliver(self, channel: str, ids: Sequence[str]) -> None:
        answer = await self._pending_store.redeliver(channel, ids)
        server_ms, now = self._clock.server_ms(), self._clock.now()
        known = self._pending.get(channel, {})
        for id_, next_ms in zip(ids, answer.next_ms, strict=True):
            if id_ not in known:
                continue  # acknowledged meanwhile
            if next_ms:
                # The clocks may differ a little: never ask again immediately.
                known[id_] = now + max(_TICK, (next_ms - server_ms) / 1000)
            else:
                del known[id_]
        if answer.dead_lettered:
            self._counters["dead.given_up"] += answer.dead_lettered
            count = answer.dead_lettered
            log.warning("moved %d events of %s to the dead letters: no client acknowledged them", count, channel)


def _read_only(reason: str, command: Ack) -> CommandRefused:
    return CommandRefused("read_only", f"nothing can be written now: {reason}", retry_ms=_RETRY_MS, ref=command.ref)
