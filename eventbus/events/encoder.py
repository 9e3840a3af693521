"""From a call of ``emit`` to bytes: validation, and the only serialisation of an event."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from pydantic_core import PydanticSerializationError

from eventbus import clock
from eventbus.errors import InvalidPayload, TooLarge
from eventbus.events.event import Event
from eventbus.events.integers import check_fields, check_json
from eventbus.events.receipt import Receipt
from eventbus.events.round_trip import has_nan, json_traits
from eventbus.process_state import check_process
from eventbus.protocol.ids import event_id
from eventbus.protocol.policy import Keep, Policy, lane_number
from eventbus.protocol.records import routing_header
from eventbus.protocol.topics import channel_of, check_id, kind_of
from eventbus.settings import BusSettings

__all__ = ["IMMORTAL", "Emission", "EmissionBuilder", "Lifetime"]

_MAX_KEY: Final = 256  # characters; a longer key is hashed
_TOLERATED_MS: Final = 1_000  # difference of clocks that changes no expiry


@dataclass(slots=True)
class Lifetime:
    """How long an event is of use. Shared between events: it is never changed.

    Attributes:
        expires_ms: when a browser no longer needs it, in milliseconds since 1970; 0: never.
        key_ttl_s: how long Redis keeps the channel's keys after it, in seconds.
        ack_deadline_ms: until when its user has to acknowledge it, in milliseconds since 1970; 0: no acknowledgement.
    """

    expires_ms: int
    key_ttl_s: float
    ack_deadline_ms: int


IMMORTAL: Final = Lifetime(0, 0.0, 0)
"""Never expires, does not prolong the life of its channel, needs no acknowledgement."""


@dataclass(slots=True, eq=False)
class Emission:
    """An event on its way to Redis.

    Attributes:
        channel: where it is published.
        topic: within the channel.
        lane: 0 high, 1 normal, 2 low.
        keep: ``log``, ``latest`` or ``nothing``.
        key: conflation key, or None.
        lifetime: how long it is of use.
        header: routing header without the offset.
        tail: the JSON without its first member, the offset.
        receipt: what the caller of ``emit`` has.
        expires: when the outbox may drop it, in milliseconds since 1970; 0: never. An event that needs an
            acknowledgement never expires on its way: a late one belongs to the dead letters, which Redis keeps.
    """

    channel: str
    topic: str
    lane: int
    keep: Keep
    key: str | None
    lifetime: Lifetime
    header: str
    tail: bytes
    receipt: Receipt
    expires: int

    @property
    def id(self) -> str:
        """The event's id."""
        return self.receipt.id

    @property
    def size(self) -> int:
        """Bytes that it takes while it waits."""
        return len(self.tail) + 300

    def header_on(self, ahead_ms: int) -> str:
        """Return the header for a server whose clock differs, so that the event expires there in time.

        Args:
            ahead_ms: milliseconds by which the server's clock is ahead.
        """
        expires = self.lifetime.expires_ms
        if not expires or abs(ahead_ms) < _TOLERATED_MS:
            return self.header
        lane, keep, _, rest = self.header.split(" ", 3)
        return f"{lane} {keep} {expires + ahead_ms} {rest}"


class EmissionBuilder:
    """Validates and serialises events. Pure except for the clock, which is a parameter.

    Args:
        settings: ``max_event_bytes``, ``large_integers``, and the life of each kind of channel.
    """

    def __init__(self, settings: BusSettings) -> None:
        self._limit = settings.max_event_bytes
        self._checks_integers = settings.large_integers == "refuse"
        # Most events do not expire by themselves. They share one object, which saves the garbage collector work.
        self._of_kind = {
            kind: Lifetime(0, getattr(settings, f"{kind}_ttl").total_seconds(), 0)
            for kind in ("user", "collection", "system")
        }

    def build(self, topic: str, payload: Event, *, id_: str | None = None, now_us: int | None = None) -> Emission:
        """Make an emission.

        Args:
            topic: a checked topic.
            payload: an event.
            id_: the event's id; default: a new one.
            now_us: microseconds since 1970; default: the clock's.

        Returns:
            The emission, with a receipt in status ``waiting``.

        Raises:
            InvalidPayload: not an event, an event class without a name, or a value that JSON or a key cannot express.
            InvalidName: ``id_`` is malformed.
            TooLarge: over ``max_event_bytes``.
        """
        if not isinstance(payload, Event):
            raise _no_event(payload)
        policy = payload.policy()
        now = clock.now_us() if now_us is None else now_us
        channel = channel_of(topic)
        receipt = Receipt(event_id() if id_ is None else _given_id(id_))
        tail = self._serialise(topic, payload, policy, receipt.id, now // 1000)
        ack = policy.deliver == "ack"
        if ack and not channel.startswith("user:"):
            raise _promised_to_many(policy, channel)
        kind = kind_of(channel)
        timed = ack or policy.ttl is not None
        begins = clock.steady_ms() if now_us is None else now_us // 1000
        lifetime = self._lifetime(kind, policy, begins) if timed else self._of_kind[kind]
        lane = lane_number(policy.lane)
        key = conflation_key(topic, payload, policy) if policy.keep == "latest" else None
        header = routing_header(
            lane=lane,
            keep=policy.keep,
            expires_ms=lifetime.expires_ms,
            emitted_us=now,
            type_=policy.name,
            topic=topic,
            key=key,
            ack=ack,
        )
        expires = 0 if ack else lifetime.expires_ms
        # By position, in this hot path only: keywords would cost 4,000 instructions more.
        return Emission(channel, topic, lane, policy.keep, key, lifetime, header, tail, receipt, expires)

    def _lifetime(self, kind: str, policy: Policy, now_ms: int) -> Lifetime:
        ttl = policy.ttl_seconds or self._of_kind[kind].key_ttl_s
        ends = now_ms + int(ttl * 1000)
        # Only a type's own ttl makes a single event expire. The channel's default is the life of its keys.
        return Lifetime(ends if policy.ttl is not None else 0, ttl, ends if policy.deliver == "ack" else 0)

    def _serialise(self, topic: str, payload: Event, policy: Policy, id_: str, now_ms: int) -> bytes:
        try:
            # The serialiser itself: model_dump_json costs several times as much and returns text.
            if payload.__special_json__:
                data = _special_json(payload)
            else:
                data = payload.__pydantic_serializer__.to_json(payload)
        except PydanticSerializationError as error:
            raise InvalidPayload(
                f"payload {policy.name} cannot be written as JSON: {error}", field="payload"
            ) from error
        if self._checks_integers:
            if policy.integers is None:
                check_json(data, policy.name)
            elif policy.integers:
                check_fields(payload.__dict__, policy.integers, policy.name)
        # No escaping: id, type and topic keep a grammar without quotes, backslashes or control characters.
        ack = '"ack":true,' if policy.deliver == "ack" else ""
        head = f'"id":"{id_}","type":"{policy.name}","topic":"{topic}","time":{now_ms},{ack}"data":'
        tail = b"%b%b}" % (head.encode(), data)
        size = len(tail) + len('{"offset":,') + 16
        if size > self._limit:
            raise TooLarge(
                f"event {policy.name} has {size} bytes; the limit is {self._limit} (max_event_bytes); "
                "put large content where the page can fetch it and emit its address",
                field="payload",
                limit=self._limit,
                size=size,
            )
        return tail


def conflation_key(topic: str, payload: Event, policy: Policy) -> str:
    """Return the key under which a newer event replaces an older one: topic, name and the policy's key fields.

    Values that are long or contain control characters are hashed, since the key is part of a header of one line. With
    several fields, values that contain the separator are hashed too: ``a/b`` and ``c`` differ from ``a`` and ``b/c``.

    Args:
        topic: a checked topic.
        payload: an event.
        policy: its class's policy.

    Raises:
        InvalidPayload: a value has no text.
    """
    parts = [topic, policy.name]
    several = len(policy.key) > 1
    for field in policy.key:
        try:
            value = str(getattr(payload, field))
        except Exception as error:
            raise InvalidPayload(f"payload {policy.name}: {field} cannot be a key: {error}", field=field) from error
        if len(value) > _MAX_KEY or not value.isprintable() or (several and "/" in value):
            value = hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        parts.append(value)
    return "/".join(parts)


def _special_json(payload: Event) -> bytes:
    """The JSON of a payload with aliases, or with nested models that may have NaN."""
    data = payload.__pydantic_serializer__.to_json(payload, by_alias=True)
    if b"null" in data and json_traits(type(payload)).may_have_nan and has_nan(payload):
        raise InvalidPayload(
            f"payload {payload.policy().name} contains NaN or infinity, which JSON cannot express; emit None instead",
            field="payload",
        )
    return data


def _given_id(id_: str) -> str:
    check_process()  # as event_id does
    return check_id(id_, "id")


def _no_event(payload: object) -> InvalidPayload:
    return InvalidPayload(
        f"payload must be an instance of an Event class, not {type(payload).__name__}; "
        "declare class Name(Event, name=…) and pass Name(…)",
        field="payload",
    )


def _promised_to_many(policy: Policy, channel: str) -> InvalidPayload:
    return InvalidPayload(
        f'event {policy.name} has deliver="ack", which is for one user, and {channel} has many readers; '
        "emit it to each user, or declare another type for the broadcast",
        field="payload",
    )
