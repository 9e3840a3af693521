"""Delivery status of the entries of an outbox: receipts, counts, and callers that wait. It takes no lock."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter

from eventbus.backends.ports import Published
from eventbus.errors import RateLimited, Refused
from eventbus.events.encoder import Emission
from eventbus.flow.priority_queue import Dropped
from eventbus.outbox.entries import Entry

__all__ = ["Culprit", "DeliveryTracker"]

_log = logging.getLogger(__name__)

# Counted without a warning: a newer state replaced it, or its task failed, or its transaction was rolled back.
_BY_RULE = frozenset({"merged", "not_succeeded", "rolled_back"})
# The rate of a channel drops ``keep="nothing"`` events only. No client misses one of them, so flush() reports no loss.
_NO_LOSS = _BY_RULE | {"rate"}
_LOG_EVERY = 10.0  # seconds between two log lines about the same kind of loss


class Culprit(Refused):
    """An event failed with an unexpected error again and again, while others were published."""


class DeliveryTracker:
    """The open entries of one outbox, and the outcome of the others.

    Args:
        dropped: counts dropped entries by reason.
        has_spooled: returns whether entries of this process wait on disk. Waiters are not notified meanwhile.
        disk_is_blocked: returns whether those wait for a shard that does not answer.

    Attributes:
        flushed: number of entries that reached Redis.
        blocked: open entries whose shard does not answer. No caller waits for them.
        lost: number of entries of this process that were dropped by no rule: see ``_NO_LOSS``.
    """

    def __init__(
        self,
        dropped: Counter[str],
        has_spooled: Callable[[], bool],
        disk_is_blocked: Callable[[], bool] = lambda: False,
    ) -> None:
        self._dropped = dropped
        self._has_spooled = has_spooled
        self._disk_is_blocked = disk_is_blocked
        self._open: dict[Entry, int] = {}
        self.blocked: dict[Entry, int] = {}
        self._is_blocked: Callable[[Entry], bool] | None = None
        self._tickets = 0
        self._waiters: list[tuple[int, Callable[[bool], None]]] = []
        self._logged: dict[str, float] = {}
        self.flushed = 0
        self.lost = 0

    @property
    def depth(self) -> int:
        """Number of open entries."""
        return len(self._open) + len(self.blocked)

    def add(self, entry: Entry) -> None:
        """Open an entry.

        Args:
            entry: a new entry.
        """
        self._tickets += 1
        blocked = self._is_blocked is not None and self._is_blocked(entry)
        (self.blocked if blocked else self._open)[entry] = self._tickets

    def is_open(self, entry: Entry) -> bool:
        """Return whether the outcome of an entry is unknown.

        Args:
            entry: an entry.
        """
        return entry in self._open or entry in self.blocked

    def open_entries(self) -> Iterator[Entry]:
        """Return the open entries in the order in which they were added."""
        return iter(self._in_order() if self.blocked else self._open)

    def block(self, is_blocked: Callable[[Entry], bool] | None) -> None:
        """Say which open entries wait for a shard that does not answer, and call those who wait for nothing else.

        Args:
            is_blocked: returns whether an entry does, also one that is added later; None: no entry does.
        """
        entries = self._in_order() if self.blocked else self._open
        self._is_blocked, self._open, self.blocked = is_blocked, {}, {}
        for entry, ticket in entries.items():
            blocked = is_blocked is not None and is_blocked(entry)
            (self.blocked if blocked else self._open)[entry] = ticket
        self.notify_waiters()

    def _in_order(self) -> dict[Entry, int]:
        return dict(sorted((*self._open.items(), *self.blocked.items()), key=itemgetter(1)))

    def _close(self, entry: Entry) -> bool:
        """Close an entry. Returns whether it was open."""
        return self._open.pop(entry, None) is not None or self.blocked.pop(entry, None) is not None

    def call_when_settled(self, settled: Callable[[bool], None]) -> None:
        """Register a waiter.

        Args:
            settled: called with True once everything that is open now is settled; with False when Redis becomes
                unreachable, or all that is left waits for a shard that does not answer.
        """
        self._waiters.append((self._tickets, settled))
        if self.blocked or self._disk_is_blocked():
            self.notify_waiters()

    def settle(self, members: Sequence[Sequence[Entry]], answers: Sequence[Published | Exception]) -> None:
        """Record the answers of Redis.

        Args:
            members: entries of each request.
            answers: to the requests.
        """
        for entries, answer in zip(members, answers, strict=True):
            for i, entry in enumerate(entries):
                own = self._close(entry) or self._has_spooled()
                if own and isinstance(answer, Exception):
                    self.lost += 1
                self._record(entry, i, answer)
        self.notify_waiters()

    def _record(self, entry: Entry, i: int, answer: Published | Exception) -> None:
        if isinstance(answer, Exception):
            reason = "unexpected" if isinstance(answer, Culprit) else "refused"
            self._dropped[reason] += 1
            self.log(reason, "an event was dropped: %s", answer)
            if isinstance(entry, Emission):
                entry.receipt.status, entry.receipt.reason = "dropped", str(answer)
            return
        self.flushed += 1
        if isinstance(entry, Emission):
            offset = answer.offsets[i]
            entry.receipt.offset = abs(offset)
            entry.receipt.status = "published" if offset > 0 else "duplicate"

    def spooled(self, entry: Entry) -> None:
        """Record that an entry is on disk.

        Args:
            entry: an open entry.
        """
        self._close(entry)
        if isinstance(entry, Emission):
            entry.receipt.status = "spooled"

    def withdraw(self, entry: Entry) -> None:
        """Forget an entry that its caller withdrew.

        Args:
            entry: an open entry.
        """
        self._close(entry)
        self.notify_waiters()

    def drop(self, dropped: Iterable[Dropped[Entry]]) -> None:
        """Record entries that the queue dropped.

        Args:
            dropped: entries and reasons.
        """
        for drop in dropped:
            self._drop(drop.item, drop.reason)
        self.notify_waiters()

    def drop_one(self, entry: Entry, reason: str) -> None:
        """Record a dropped entry.

        Args:
            entry: an entry.
            reason: key of the counter.
        """
        self._drop(entry, reason)
        self.notify_waiters()

    def drop_all(self, reason: str) -> None:
        """Drop every open entry.

        Args:
            reason: key of the counter.
        """
        for entry in list(self.open_entries()):
            self._drop(entry, reason)
        self.notify_waiters()

    def expired_on_disk(self, number: int) -> None:
        """Record entries that expired on disk.

        Args:
            number: how many.
        """
        if number:
            self._dropped["expired"] += number
            self.lost += number if self._has_spooled() else 0

    def limit(self, entry: Entry, rate: float, retry_after: float) -> None:
        """Drop an entry because its channel is over its rate.

        Args:
            entry: an open entry.
            rate: events per second that are allowed.
            retry_after: seconds until the channel takes another event.
        """
        self._drop(entry, "rate")
        if isinstance(entry, Emission):
            entry.receipt.reason = f"more than {rate:g} events a second on {entry.channel}"
            entry.receipt.retry_after = retry_after
        self.notify_waiters()

    def _drop(self, entry: Entry, reason: str) -> None:
        self._close(entry)
        self._dropped[reason] += 1
        if isinstance(entry, Emission):
            entry.receipt.status = "merged" if reason == "merged" else "dropped"
            entry.receipt.reason = reason
        if reason not in _NO_LOSS:
            self.lost += 1
        if reason not in _BY_RULE:
            self.log(reason, "the outbox dropped %d events (%s)", self._dropped[reason], reason)

    def check(self, entry: Entry, rate: float) -> None:
        """Raise if an entry was dropped.

        Args:
            entry: an entry that was put with ``strict``.
            rate: events per second that its channel may have.

        Raises:
            RateLimited: the channel is over its rate.
            Refused: Redis or the outbox refused it.
        """
        if not isinstance(entry, Emission) or entry.receipt.status != "dropped":
            return
        receipt = entry.receipt
        if receipt.retry_after is not None:
            raise RateLimited(f"nothing was sent: {receipt.reason}", limit=rate, retry_after=receipt.retry_after)
        raise Refused(f"the event was dropped: {receipt.reason}")

    def notify_waiters(self) -> None:
        """Call the waiters whose entries are settled, or wait for a shard that does not answer."""
        if not self._waiters:
            return
        spooled = self._has_spooled()
        if spooled and not self._disk_is_blocked():
            return
        end = self._tickets + 1
        oldest, oldest_blocked = next(iter(self._open.values()), end), next(iter(self.blocked.values()), end)
        ready = [(ticket, settled) for ticket, settled in self._waiters if ticket < oldest]
        if ready:
            self._waiters = [waiter for waiter in self._waiters if waiter[0] >= oldest]
            for ticket, settled in ready:
                settled(not spooled and ticket < oldest_blocked)

    def release_waiters(self) -> None:
        """Call every waiter with False: Redis is down, so that waiting is pointless."""
        waiters, self._waiters = self._waiters, []
        for _, settled in waiters:
            settled(False)

    def log(self, kind: str, message: str, *facts: object) -> None:
        """Log a warning, at most one of a kind in ten seconds.

        Args:
            kind: what the warning is about.
            message: a format.
            *facts: its arguments.
        """
        now = time.monotonic()
        if now - self._logged.get(kind, -_LOG_EVERY) >= _LOG_EVERY:
            self._logged[kind] = now
            _log.warning(message, *facts)
