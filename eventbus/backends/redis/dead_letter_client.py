"""Dead letters for a person who decides: list, show, requeue, purge. Blocking, and bounded in what it holds at once."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eventbus.backends.dead_letters import DeadLetter, parse_dead
from eventbus.backends.redis.publisher import RedisPublisher
from eventbus.backends.redis.scripts import pending
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.clock import now_ms
from eventbus.errors import InvalidName, InvalidRecord, NoDeadLetter, RateLimited
from eventbus.flow.token_bucket import TokenBucket
from eventbus.protocol.topics import check_id, kind_of
from eventbus.settings import BusSettings

__all__ = ["DeadLetterFilter", "DeadLetters", "Requeued"]

log = logging.getLogger(__name__)

_CHANNELS_AT_ONCE = 200
_LETTERS_AT_ONCE = 50
MAX_LISTED = 1_000


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Which dead letters are meant: all of what is named here has to fit. Ages are seconds since it died.

    Attributes:
        ids: event ids; None: any.
        channel: such as ``user:42``; None: all of them.
        reason, type: as in the letter.
        older_than, younger_than: seconds.
    """

    ids: frozenset[str] | None = None
    channel: str | None = None
    reason: str | None = None
    type: str | None = None
    older_than: float | None = None
    younger_than: float | None = None

    @property
    def everything(self) -> bool:
        """Whether nothing narrows it."""
        return self == DeadLetterFilter()

    def fits(self, letter: DeadLetter, now_ms: int) -> bool:
        """Whether a letter is meant."""
        age = (now_ms - letter.died) / 1000
        return (
            (self.ids is None or letter.id in self.ids)
            and (self.reason is None or letter.reason == self.reason)
            and (self.type is None or letter.type == self.type)
            and (self.older_than is None or age >= self.older_than)
            and (self.younger_than is None or age <= self.younger_than)
        )


@dataclass(frozen=True, slots=True)
class Requeued:
    """What became of a requeue. ``unreadable``: there is no event in them that could be sent. ``left``: not tried, as
    they would have been too many at once.
    """

    requeued: int
    unreadable: int
    left: int = 0


class DeadLetters:
    """Methods raise Unavailable or Refused where Redis does not do it, and InvalidName for a malformed channel."""

    def __init__(self, settings: BusSettings | None = None) -> None:
        self._settings = settings or BusSettings()
        self._keys = Keys(self._settings.key_prefix)
        self._redis = RedisPublisher(self._settings)
        self._requeues = TokenBucket(self._settings.requeue_rate, time.monotonic())

    def close(self) -> None:
        """Give up the connection."""
        self._redis.close()

    def find(self, chosen: DeadLetterFilter | None = None, *, limit: int = 100) -> list[DeadLetter]:
        """The first ``limit`` that fit (at most 1,000), by channel, and within one the longest dead first."""
        found: list[DeadLetter] = []
        for letter in self._walk(chosen or DeadLetterFilter()):
            found.append(letter)
            if len(found) >= min(limit, MAX_LISTED):
                break
        return found

    def show(self, channel: str, id_: str) -> DeadLetter:
        """One letter. Raises NoDeadLetter."""
        channel = _checked(channel)
        dead = self._keys.pending(channel)[4]
        (entry,) = self._redis.execute(("HGET", dead, check_id(id_, "id")))
        if entry is None:
            raise NoDeadLetter(channel, id_)
        return _letter(channel, id_, entry)

    def count(self, chosen: DeadLetterFilter | None = None) -> Counter[str]:
        """How many there are, by reason."""
        return Counter(letter.reason for letter in self._walk(chosen or DeadLetterFilter()))

    def requeue(self, chosen: DeadLetterFilter, *, by: str, limit: int = 100, wait: bool = False) -> Requeued:
        """Send those that fit once more, ``limit`` of them at most; what has been sent again already is no more there.

        At most ``requeue_rate`` a second: the rest is ``left``, or with ``wait`` has its turn.

        Raises:
            RateLimited: nothing was sent, and nothing may be yet.
        """
        requeued = unreadable = left = 0
        for channel, ids in self._by_channel(self.find(chosen, limit=limit)).items():
            done = 0
            while number := self._take(len(ids) - done, wait=wait):
                going = ids[done : done + number]
                done += number
                self._look_again(channel)
                places = self._redis.run(pending.requeue(self._settings, self._keys, channel, going))
                requeued += sum(place > 0 for place in places)
                unreadable += places.count(-1)
                log.info("%s requeued %d dead letters of %s: %s", by, len(going), channel, ", ".join(going))
            left += len(ids) - done
        if left and not requeued + unreadable:
            rate = self._settings.requeue_rate
            raise RateLimited(f"at most {rate:g} requeues a second", limit=rate, retry_after=self._until_next)
        return Requeued(requeued, unreadable, left)

    def purge(self, chosen: DeadLetterFilter, *, by: str, limit: int = MAX_LISTED) -> int:
        """Remove those that fit, ``limit`` of them at most, for good. Returns how many went."""
        gone = 0
        for channel, ids in self._by_channel(self.find(chosen, limit=limit)).items():
            self._look_again(channel)
            gone += self._redis.run(pending.purge(self._settings, self._keys, channel, ids))
            log.info("%s purged %d dead letters of %s: %s", by, len(ids), channel, ", ".join(ids))
        return gone

    def _look_again(self, channel: str) -> None:
        """The sweeper is to see it soon, for whoever looks at the figures."""
        self._redis.execute(*pending.noted(self._settings, self._keys, (channel,), now_ms()))

    def _take(self, number: int, *, wait: bool) -> int:
        """How many of so many may go now: they reach browsers at once, and a slip of the hand must not send all."""
        while True:
            taken = self._requeues.take_many(min(number, _LETTERS_AT_ONCE), time.monotonic())
            if taken or not wait or not number:
                return taken
            time.sleep(self._until_next)

    @property
    def _until_next(self) -> float:
        """Seconds until one more may go."""
        return max(0.001, self._requeues.wait(time.monotonic()))

    @staticmethod
    def _by_channel(letters: Sequence[DeadLetter]) -> dict[str, list[str]]:
        ids: dict[str, list[str]] = {}
        for letter in letters:
            ids.setdefault(letter.channel, []).append(letter.id)
        return ids

    def _walk(self, chosen: DeadLetterFilter) -> Iterator[DeadLetter]:
        now = now_ms()
        channels = self._channels() if chosen.channel is None else iter([_checked(chosen.channel)])
        for channel in channels:
            for letter in self._of(channel):
                if chosen.fits(letter, now):
                    yield letter

    def _channels(self) -> Iterator[str]:
        """Those of the index that have dead letters, a piece at a time."""
        cursor = b"0"
        while True:
            ((cursor, found),) = self._redis.execute(("ZSCAN", self._keys.index, cursor, "COUNT", _CHANNELS_AT_ONCE))
            names = sorted({name.decode() for name in found[::2]})
            if names:
                sizes = self._redis.execute(*(("HLEN", self._keys.pending(name)[4]) for name in names))
                yield from (name for name, size in zip(names, sizes, strict=True) if size)
            if cursor in {b"0", 0}:
                return

    def _of(self, channel: str) -> Iterator[DeadLetter]:
        *_, dead, at, _ = self._keys.pending(channel)
        start = 0
        while True:
            (ids,) = self._redis.execute(("ZRANGE", at, start, start + _LETTERS_AT_ONCE - 1))
            if not ids:
                return
            (entries,) = self._redis.execute(("HMGET", dead, *ids))
            for id_, entry in zip(ids, entries, strict=True):
                if entry is not None:
                    yield _letter(channel, id_.decode(), entry)
            start += len(ids)


def _letter(channel: str, id_: str, entry: bytes) -> DeadLetter:
    """Also of what this library did not write: it must not hide the others, and a person may want it gone."""
    try:
        return parse_dead(channel, id_, entry)
    except InvalidRecord:
        return DeadLetter(channel, id_, "undecodable", 0, 0, 0, 0, None, entry.decode("utf-8", "replace"))


def _checked(channel: str) -> str:
    """A channel's name, or a user's id."""
    if ":" not in channel and channel != "system":
        return f"user:{check_id(channel, 'channel')}"
    kind, _, id_ = channel.partition(":")
    if kind_of(channel) not in {"user", "collection", "system"} or (kind == "system") == bool(id_):
        raise InvalidName(f"channel {channel!r} must be user:…, collection:… or system", field="channel")
    if id_:
        check_id(id_, "channel")
    return channel
