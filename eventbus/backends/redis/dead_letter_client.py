"""The blocking client of dead letters, for an operator: list, show, requeue, purge. Its use of
memory is bounded.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from eventbus.backends.audit import AuditEntry, Via, log_entry
from eventbus.backends.dead_letters import DeadLetter, parse_dead
from eventbus.backends.redis.audit.audit_log import audit_commands
from eventbus.backends.redis.publisher import RedisPublisher
from eventbus.backends.redis.scripts import pending
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.errors import InvalidName, InvalidRecord, NoDeadLetter, RateLimited
from eventbus.flow.token_bucket import TokenBucket
from eventbus.protocol.topics import check_id, kind_of
from eventbus.settings import BusSettings

__all__ = ["DeadLetterFilter", "DeadLetters", "Requeued"]

_CHANNELS_PER_CALL: Final = 200
_DEAD_PER_CALL: Final = 50
MAX_LISTED: Final = 1_000


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Selects dead letters. A dead letter must match all conditions that are set.

    Attributes:
        ids: event ids; None: any.
        channel: the channel, such as ``user:42``; None: all channels.
        reason: reason of death; None: any.
        type: event type; None: any.
        older_than: minimum of seconds since its death; None: no minimum.
        younger_than: maximum of seconds since its death; None: no maximum.
    """

    ids: frozenset[str] | None = None
    channel: str | None = None
    reason: str | None = None
    type: str | None = None
    older_than: float | None = None
    younger_than: float | None = None

    @property
    def everything(self) -> bool:
        """Whether it selects all dead letters."""
        return self == DeadLetterFilter()

    def fits(self, dead_letter: DeadLetter, now_ms: int) -> bool:
        """Return whether it selects a dead letter.

        Args:
            dead_letter: the dead letter.
            now_ms: milliseconds since 1970.
        """
        age = (now_ms - dead_letter.died) / 1000
        return (
            (self.ids is None or dead_letter.id in self.ids)
            and (self.reason is None or dead_letter.reason == self.reason)
            and (self.type is None or dead_letter.type == self.type)
            and (self.older_than is None or age >= self.older_than)
            and (self.younger_than is None or age <= self.younger_than)
        )


@dataclass(frozen=True, slots=True)
class Requeued:
    """Result of a requeue.

    Attributes:
        requeued: number of dead letters that were published again.
        unreadable: number of those that contain no valid event.
        left: number of those that the rate limit left for later.
    """

    requeued: int
    unreadable: int
    left: int = 0


class DeadLetters:
    """Lists, shows, requeues and purges dead letters. One thread uses it at a time.

    Every method raises ``Unavailable`` or ``Refused``, and ``InvalidName`` for a malformed channel.

    Args:
        settings: address, limits and the keys' prefix; the default reads the environment.
    """

    def __init__(self, settings: BusSettings | None = None) -> None:
        self._settings = settings or BusSettings()
        self._keys = Keys.of(self._settings)
        self._redis = RedisPublisher(self._settings)
        self._requeues = TokenBucket(self._settings.requeue_rate, time.monotonic())

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()

    def find(self, chosen: DeadLetterFilter | None = None, *, limit: int = 100) -> list[DeadLetter]:
        """List dead letters by channel; within a channel the longest dead first.

        Args:
            chosen: which dead letters; the default selects all.
            limit: maximum number, at most 1,000.

        Returns:
            The dead letters.
        """
        found: list[DeadLetter] = []
        for dead_letter in self._walk(chosen or DeadLetterFilter()):
            found.append(dead_letter)
            if len(found) >= min(limit, MAX_LISTED):
                break
        return found

    def show(self, channel: str, id_: str) -> DeadLetter:
        """Read one dead letter.

        Args:
            channel: its channel, or a user's id.
            id_: its id.

        Returns:
            The dead letter.

        Raises:
            NoDeadLetter: there is none with this id.
        """
        channel = _checked(channel)
        dead = self._keys.pending(channel)[4]
        (entry,) = self._redis.execute(("HGET", dead, check_id(id_, "id")))
        if entry is None:
            raise NoDeadLetter(channel, id_)
        return _parse(channel, id_, entry)

    def count(self, chosen: DeadLetterFilter | None = None) -> Counter[str]:
        """Return the number of dead letters by reason.

        Args:
            chosen: which dead letters; the default selects all.
        """
        return Counter(dead_letter.reason for dead_letter in self._walk(chosen or DeadLetterFilter()))

    def requeue(
        self, chosen: DeadLetterFilter, *, by: str, via: Via = "python", limit: int = 100, wait: bool = False
    ) -> Requeued:
        """Publish dead letters again. A dead letter that was requeued is no longer one, so a
        repeated call is harmless.

        Args:
            chosen: which dead letters.
            by: name of the operator, for the audit log.
            via: how the operator asks.
            limit: maximum number.
            wait: whether to wait for the rate limit, ``requeue_rate`` a second, instead of leaving
                the rest.

        Returns:
            The numbers.

        Raises:
            RateLimited: the rate limit allows none now.
        """
        requeued = unreadable = left = 0
        for channel, ids in self._by_channel(self.find(chosen, limit=limit)).items():
            done = 0
            while number := self._take(len(ids) - done, wait=wait):
                going = ids[done : done + number]
                done += number
                self._begin(AuditEntry("dead_letters.requeue", by, via, channel, len(going), tuple(going)))
                format_ = self._redis.format_to_write()
                places = self._redis.run(pending.requeue(self._settings, self._keys, channel, going, format_))
                requeued += sum(place > 0 for place in places)
                unreadable += places.count(-1)
            left += len(ids) - done
        if left and not requeued + unreadable:
            rate = self._settings.requeue_rate
            raise RateLimited(f"at most {rate:g} requeues a second", limit=rate, retry_after=self._until_next)
        return Requeued(requeued, unreadable, left)

    def purge(self, chosen: DeadLetterFilter, *, by: str, via: Via = "python", limit: int = MAX_LISTED) -> int:
        """Remove dead letters. They cannot be restored.

        Args:
            chosen: which dead letters.
            by: name of the operator, for the audit log.
            via: how the operator asks.
            limit: maximum number.

        Returns:
            The number of removed dead letters.
        """
        gone = 0
        for channel, ids in self._by_channel(self.find(chosen, limit=limit)).items():
            self._begin(AuditEntry("dead_letters.purge", by, via, channel, len(ids), tuple(ids)))
            gone += self._redis.run(pending.purge(self._settings, self._keys, channel, ids))
        return gone

    def _begin(self, entry: AuditEntry) -> None:
        """Write the audit log, and schedule a sweep, since only a sweep updates the totals that operators see."""
        settings, keys = self._settings, self._keys
        sweep = pending.index_channels(settings, keys, (entry.target,), self._redis.server_ms())
        self._redis.execute(*audit_commands(settings, keys, entry), *sweep)
        log_entry(entry)

    def _take(self, number: int, *, wait: bool) -> int:
        """Take up to ``number`` from the rate limit. Requeued events reach browsers immediately, so
        a typo must not send all.
        """
        while True:
            taken = self._requeues.take_many(min(number, _DEAD_PER_CALL), time.monotonic())
            if taken or not wait or not number:
                return taken
            time.sleep(self._until_next)

    @property
    def _until_next(self) -> float:
        """Seconds until the rate limit allows one more."""
        return max(0.001, self._requeues.wait(time.monotonic()))

    @staticmethod
    def _by_channel(dead_letters: Sequence[DeadLetter]) -> dict[str, list[str]]:
        ids: dict[str, list[str]] = {}
        for dead_letter in dead_letters:
            ids.setdefault(dead_letter.channel, []).append(dead_letter.id)
        return ids

    def _walk(self, chosen: DeadLetterFilter) -> Iterator[DeadLetter]:
        now = self._redis.server_ms()
        channels = self._channels() if chosen.channel is None else iter([_checked(chosen.channel)])
        for channel in channels:
            for dead_letter in self._of(channel):
                if chosen.fits(dead_letter, now):
                    yield dead_letter

    def _channels(self) -> Iterator[str]:
        """Yield channels of the index that have dead letters. It reads the index in pieces."""
        cursor = b"0"
        while True:
            ((cursor, found),) = self._redis.execute(("ZSCAN", self._keys.index, cursor, "COUNT", _CHANNELS_PER_CALL))
            names = sorted({name.decode() for name in found[::2]})
            if names:
                sizes = self._redis.execute(*(("HLEN", self._keys.pending(name)[4]) for name in names))
                yield from (name for name, size in zip(names, sizes, strict=True) if size)
            if cursor in {b"0", 0}:
                return

    def _of(self, channel: str) -> Iterator[DeadLetter]:
        start, read = 0, _DEAD_PER_CALL
        while read == _DEAD_PER_CALL:
            call = pending.list_dead(self._settings, self._keys, channel, start, _DEAD_PER_CALL)
            read, entries = self._redis.run(call)
            yield from (_parse(channel, id_, entry) for id_, entry in entries)
            start += read


def _parse(channel: str, id_: str, entry: bytes) -> DeadLetter:
    """Parse an entry. One that this library did not write is shown as undecodable, so that an
    operator can remove it.
    """
    try:
        return parse_dead(channel, id_, entry)
    except InvalidRecord:
        return DeadLetter(channel, id_, "undecodable", 0, 0, 0, 0, None, entry.decode("utf-8", "replace"))


def _checked(channel: str) -> str:
    """Return the channel of a channel's name or a user's id."""
    if ":" not in channel and channel != "system":
        return f"user:{check_id(channel, 'channel')}"
    kind, _, id_ = channel.partition(":")
    if kind_of(channel) not in {"user", "collection", "system"} or (kind == "system") == bool(id_):
        raise InvalidName(f"channel {channel!r} must be user:…, collection:… or system", field="channel")
    if id_:
        check_id(id_, "channel")
    return channel
