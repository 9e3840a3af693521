"""What became of what was put into the outbox: fates, counts, and who waits for them. No lock of its own."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from eventbus.backends.ports import Published
from eventbus.errors import RateLimited, Refused
from eventbus.events.encoder import Emission
from eventbus.flow.priority_queue import Dropped
from eventbus.outbox.entries import Entry

__all__ = ["DeliveryTracker"]

_log = logging.getLogger(__name__)

# Counted, and nothing to be warned of: it was superseded, or it has not come true.
_BY_RULE = frozenset({"merged", "not_succeeded", "rolled_back"})
_LOG_EVERY = 10.0  # seconds between two log lines about the same kind of loss


class DeliveryTracker:
    """Of one outbox.

    Attributes:
        flushed: how many reached Redis.
    """

    def __init__(self, dropped: Counter[str], on_disk: Callable[[], bool]) -> None:
        """``on_disk`` says whether something of this process waits there: then nobody is told that all is settled."""
        self._dropped = dropped
        self._on_disk = on_disk
        self._outstanding: dict[Entry, int] = {}
        self._tickets = 0
        self._waiters: list[tuple[int, Callable[[bool], None]]] = []
        self._logged: dict[str, float] = {}
        self.flushed = 0

    @property
    def depth(self) -> int:
        """Entries whose fate is open."""
        return len(self._outstanding)

    def expect(self, entry: Entry) -> None:
        """An entry has come."""
        self._tickets += 1
        self._outstanding[entry] = self._tickets

    def waits(self, entry: Entry) -> bool:
        """Whether an entry's fate is open."""
        return entry in self._outstanding

    def open(self) -> Iterator[Entry]:
        """Entries whose fate is open, in the order in which they came."""
        return iter(self._outstanding)

    def call_when_settled(self, tell: Callable[[bool], None]) -> None:
        """``tell`` is called with True once all that has come by now is settled; with False if Redis is away."""
        self._waiters.append((self._tickets, tell))

    def settle(self, members: Sequence[Sequence[Entry]], answers: Sequence[Published | Exception]) -> None:
        """Redis has answered."""
        for entries, answer in zip(members, answers, strict=True):
            for i, entry in enumerate(entries):
                self._outstanding.pop(entry, None)
                self._note(entry, i, answer)
        self.tell_waiters()

    def _note(self, entry: Entry, i: int, answer: Published | Exception) -> None:
        if isinstance(answer, Exception):
            self._dropped["refused"] += 1
            self.log("refused", "an event was dropped: %s", answer)
            if isinstance(entry, Emission):
                entry.receipt.status, entry.receipt.reason = "dropped", str(answer)
            return
        self.flushed += 1
        if isinstance(entry, Emission):
            offset = answer.offsets[i]
            entry.receipt.offset = abs(offset)
            entry.receipt.status = "published" if offset > 0 else "duplicate"

    def spooled(self, entry: Entry) -> None:
        """An entry is on disk."""
        self._outstanding.pop(entry, None)
        if isinstance(entry, Emission):
            entry.receipt.status = "spooled"

    def withdraw(self, entry: Entry) -> None:
        """Its caller has taken it back."""
        self._outstanding.pop(entry, None)
        self.tell_waiters()

    def drop(self, dropped: Iterable[Dropped[Entry]]) -> None:
        """The outbox gave entries up, for its reasons."""
        for drop in dropped:
            self._drop(drop.item, drop.reason)
        self.tell_waiters()

    def drop_one(self, entry: Entry, reason: str) -> None:
        """One entry is given up."""
        self._drop(entry, reason)
        self.tell_waiters()

    def drop_all(self, reason: str) -> None:
        """Everything whose fate is open is given up."""
        for entry in list(self._outstanding):
            self._drop(entry, reason)
        self.tell_waiters()

    def limit(self, entry: Entry, rate: float, retry_after: float) -> None:
        """An entry came too soon after others of its channel."""
        self._drop(entry, "rate")
        if isinstance(entry, Emission):
            entry.receipt.reason = f"more than {rate:g} events a second on {entry.channel}"
            entry.receipt.retry_after = retry_after
        self.tell_waiters()

    def _drop(self, entry: Entry, reason: str) -> None:
        self._outstanding.pop(entry, None)
        self._dropped[reason] += 1
        if isinstance(entry, Emission):
            entry.receipt.status = "merged" if reason == "merged" else "dropped"
            entry.receipt.reason = reason
        if reason not in _BY_RULE:
            self.log(reason, "the outbox dropped %d events (%s)", self._dropped[reason], reason)

    def check(self, entry: Entry, rate: float) -> None:
        """For who asked for strictness. Raises RateLimited or Refused for an event that was given up."""
        if not isinstance(entry, Emission) or entry.receipt.status != "dropped":
            return
        receipt = entry.receipt
        if receipt.retry_after is not None:
            raise RateLimited(f"nothing was sent: {receipt.reason}", limit=rate, retry_after=receipt.retry_after)
        raise Refused(f"the event was dropped: {receipt.reason}")

    def tell_waiters(self) -> None:
        """Call those whose entries are settled."""
        if not self._waiters or self._on_disk():
            return
        oldest = next(iter(self._outstanding.values()), self._tickets + 1)
        ready = [tell for ticket, tell in self._waiters if ticket < oldest]
        if ready:
            self._waiters = [waiter for waiter in self._waiters if waiter[0] >= oldest]
            for tell in ready:
                tell(True)

    def release_waiters(self) -> None:
        """There is nothing to wait for any more: Redis is away."""
        waiters, self._waiters = self._waiters, []
        for _, tell in waiters:
            tell(False)

    def log(self, kind: str, message: str, *facts: object) -> None:
        """Warn, but not about the same kind again and again."""
        now = time.monotonic()
        if now - self._logged.get(kind, -_LOG_EVERY) >= _LOG_EVERY:
            self._logged[kind] = now
            _log.warning(message, *facts)
