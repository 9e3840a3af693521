"""What users are owed, as far as this gateway has to know: who has to be given what, and when to send it again.

Redis decides (``_pending.lua``); here is kept which ids to ask it about. Knowing too many costs a question.
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
_ASKED_AT_ONCE = 100
_RETRY_MS = 2_000


class RedeliveryScheduler:
    """Works for one gateway. ``ack_timeout``: seconds after which what nobody acknowledged is asked about."""

    def __init__(
        self,
        context: GatewayContext,
        pending_store: PendingStore,
        ack_timeout: float,
    ) -> None:
        self._pending_store = pending_store
        self._clock = context.clock
        self._ack_timeout = ack_timeout
        self._counters = context.counters
        self._read_only = context.read_only
        self._spawn = context.spawn
        self._flush = context.flush
        # Channel -> id -> when to ask about it. Channels of connected users only.
        self._owed: dict[str, dict[str, float]] = {}
        # The same, of channels of which the rest is not known yet: its reading may be older than these.
        self._early: dict[str, dict[str, float]] = {}
        # Those of them that may have ids: nearly all are known to have none, and need not be looked at.
        self._owing: set[str] = set()
        # Channel -> ids of the part that was read last, of lists too long to be read at once.
        self._parts: dict[str, set[str]] = {}

    # --- giving ----------------------------------------------------------------------------------------------

    def has_none(self, channel: str) -> bool:
        """Whether it is known that the user of this channel is owed nothing."""
        return self._owed.get(channel) == {} and channel not in self._parts

    def channel_read(self, channel: str, *, pending: bool) -> None:
        """The channel has been read, and whether its user is owed something: most are not, which spares a question."""
        if not pending:
            self._known(channel)  # it was heard of before the reading
        elif self.has_none(channel):
            # It came while nobody heard, and maybe no log has it any more: what is asked about is sent again.
            self.forget(channel)
            self._spawn(self._learn(channel))

    async def _learn(self, channel: str) -> None:
        try:
            await self.fetch(channel)
        except (TransportError, InvalidRecord) as error:
            log.warning("what is owed on %s cannot be read: %s", channel, error)
            self.forget(channel)  # the next newcomer asks

    async def fetch(self, channel: str) -> PendingBatch:
        """What the user is owed. Raises Unavailable, Refused, InvalidRecord."""
        owed = await self._pending_store.fetch(channel)
        due = self._clock.now() + self._ack_timeout
        known = self._known(channel)
        for record in owed.records:
            known.setdefault(record.id, due)
        self._owing.add(channel)
        self._note_part(channel, owed)
        return owed

    def _note_part(self, channel: str, owed: PendingBatch) -> None:
        if owed.more:
            self._parts[channel] = {record.id for record in owed.records}
        else:
            self._parts.pop(channel, None)

    def _known(self, channel: str) -> dict[str, float]:
        """Since now it is known what the user of this channel is owed."""
        self._owing.add(channel)  # the next round lets go what has none
        return self._owed.setdefault(channel, self._early.pop(channel, {}))

    def track(self, channel: str, record: Record) -> None:
        """An event that is owed has just gone to the sessions of this channel."""
        known = self._owed.get(channel)
        if known is None:
            known = self._early.setdefault(channel, {})
        else:
            self._owing.add(channel)
        known[record.id] = self._clock.now() + self._ack_timeout

    def forget(self, channel: str) -> None:
        """Nobody is connected here who reads this channel: somebody else's business, or nobody's for now."""
        self._owed.pop(channel, None)
        self._early.pop(channel, None)
        self._owing.discard(channel)
        self._parts.pop(channel, None)

    # --- acknowledgements ------------------------------------------------------------------------------------

    def ack(self, session: Session, command: Ack) -> None:
        """Begin to take a page's word that it has something; the answer follows when Redis has it."""
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
            for known in (self._owed.get(channel, {}), self._early.get(channel, {})):
                for id_ in command.ids:
                    known.pop(id_, None)
            self._counters["acked"] += acked
            session.answer(command.ref, acked=acked)
        self._flush()

    # --- again -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Ask again and again about what is due, as long as the gateway lives."""
        while True:
            await asyncio.sleep(_TICK)
            if self._read_only() is None:
                try:
                    await self._send_next_parts()
                    await self._send_due()
                except Exception:
                    # One that has ended would leave everybody's letters lying.
                    log.exception("what is due could not be sent again")

    async def _send_next_parts(self) -> None:
        """Of a list too long for once: when one part is acknowledged, or given up on, the next is due at once."""
        for channel, ids in list(self._parts.items()):
            if not ids.isdisjoint(self._owed.get(channel, ())):
                continue
            try:
                owed = await self._pending_store.fetch(channel)
            except (TransportError, InvalidRecord) as error:
                log.info("what else is owed on %s cannot be read yet: %s", channel, error)
                continue
            if channel not in self._parts:
                continue  # the last reader has gone meanwhile
            known, now = self._known(channel), self._clock.now()
            known.update((record.id, now) for record in owed.records if record.id not in known)
            self._note_part(channel, owed)

    async def _send_due(self) -> None:
        now = self._clock.now()
        for channel in list(self._owing):
            known = self._owed.get(channel)
            if not known:
                self._owing.discard(channel)
                continue
            ids = [id_ for id_, due in known.items() if due <= now][:_ASKED_AT_ONCE]
            if ids:
                try:
                    await self._ask(channel, ids)
                except (TransportError, InvalidRecord) as error:
                    log.info("what is due on %s cannot be sent again yet: %s", channel, error)
                    if isinstance(error, Unavailable):
                        return
                    # It is this channel's trouble: the others' turn is not to wait for it.
                    known.update((id_, now + _RETRY_MS / 1000) for id_ in ids if id_ in known)

    async def _ask(self, channel: str, ids: Sequence[str]) -> None:
        answer = await self._pending_store.redeliver(channel, ids)
        wall, now = self._clock.wall() * 1000, self._clock.now()
        known = self._owed.get(channel, {})
        for id_, next_ms in zip(ids, answer.next_ms, strict=True):
            if id_ not in known:
                continue  # acknowledged meanwhile
            if next_ms:
                # Redis' clock may not be ours: never at once again.
                known[id_] = now + max(_TICK, (next_ms - wall) / 1000)
            else:
                del known[id_]
        if answer.dead_lettered:
            self._counters["dead.given_up"] += answer.dead_lettered
            log.warning("%d events of %s were given up on: nobody acknowledged them", answer.dead_lettered, channel)


def _read_only(reason: str, command: Ack) -> CommandRefused:
    return CommandRefused("read_only", f"nothing can be written now: {reason}", retry_ms=_RETRY_MS, ref=command.ref)
