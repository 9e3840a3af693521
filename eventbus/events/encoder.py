"""From a call of ``emit`` to bytes: validation and the one serialisation in an event's life."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from pydantic_core import PydanticSerializationError

from eventbus import clock
from eventbus.errors import InvalidPayload, TooLarge
from eventbus.events.event import Event
from eventbus.events.receipt import Receipt
from eventbus.protocol.ids import event_id
from eventbus.protocol.policy import Keep, Policy, lane_number
from eventbus.protocol.records import routing_header
from eventbus.protocol.topics import channel_of, check_id, kind_of
from eventbus.settings import BusSettings

__all__ = ["Emission", "EmissionBuilder"]


_MAX_KEY = 256


@dataclass(slots=True, eq=False)
class Emission:
    """An event on its way to Redis.

    ``header`` is the routing header without the offset, ``tail`` the JSON without its first member, the offset.
    ``expires`` is in milliseconds since 1970 (0: never), ``ttl`` in seconds. ``ack_deadline`` is set where a user must
    acknowledge it: when that promise ends, in milliseconds since 1970. Such a one never expires on its way: what comes
    too late is to be found among the dead letters, and those are Redis'.
    """

    channel: str
    topic: str
    lane: int
    keep: Keep
    key: str | None
    expires: int
    ttl: float
    header: str
    tail: bytes
    receipt: Receipt
    ack_deadline: int = 0

    @property
    def id(self) -> str:
        """The event's id."""
        return self.receipt.id

    @property
    def size(self) -> int:
        """Bytes that it costs while it waits."""
        return len(self.tail) + 300


class EmissionBuilder:
    """Validates and serialises. Pure but for the clock, which is a parameter."""

    def __init__(self, settings: BusSettings) -> None:
        self._limit = settings.max_event_bytes
        self._ttl = {
            kind: getattr(settings, f"{kind}_ttl").total_seconds() for kind in ("user", "collection", "system")
        }

    def build(self, topic: str, payload: Event, *, id_: str | None = None, now_us: int | None = None) -> Emission:
        """Make an emission for a checked topic.

        Raises:
            InvalidPayload: not an event, an event class without a name, or a value that JSON, or a key, cannot say.
            InvalidName: ``id_`` is malformed.
            TooLarge: over ``max_event_bytes``.
        """
        if not isinstance(payload, Event):
            raise _no_event(payload)
        policy = payload.policy()
        now = clock.now_us() if now_us is None else now_us
        channel = channel_of(topic)
        receipt = Receipt(event_id() if id_ is None else check_id(id_, "id"))
        tail = self._serialise(topic, payload, policy, receipt.id, now // 1000)
        ttl = policy.ttl_seconds or self._ttl[kind_of(channel)]
        # Only a type's own ttl makes a single event expire; the channel's default is the life of its keys.
        expires = now // 1000 + int(ttl * 1000) if policy.ttl is not None else 0
        lane = lane_number(policy.lane)
        key = conflation_key(topic, payload, policy) if policy.keep == "latest" else None
        ack = policy.deliver == "ack"
        if ack and not channel.startswith("user:"):
            raise _promised_to_many(policy, channel)
        header = routing_header(
            lane=lane,
            keep=policy.keep,
            expires_ms=expires,
            emitted_us=now,
            type_=policy.name,
            topic=topic,
            key=key,
            ack=ack,
        )
        ack_deadline = now // 1000 + int(ttl * 1000) if ack else 0
        waits = 0 if ack else expires
        return Emission(channel, topic, lane, policy.keep, key, waits, ttl, header, tail, receipt, ack_deadline)

    def _serialise(self, topic: str, payload: Event, policy: Policy, id_: str, now_ms: int) -> bytes:
        try:
            # The serialiser itself: model_dump_json costs several times as much and returns text.
            data = payload.__pydantic_serializer__.to_json(payload)
        except PydanticSerializationError as error:
            raise InvalidPayload(
                f"payload {policy.name} cannot be written as JSON: {error}", field="payload"
            ) from error
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
    """Key under which a newer event takes an older one's place: topic, name and the policy's key fields.

    Values that are long or hold control characters are hashed: the key stands in a header of one line. So are those
    of several fields that hold what stands between them: ``a/b`` and ``c`` are not ``a`` and ``b/c``. Raises
    InvalidPayload for a value that has no text.
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


def _no_event(payload: object) -> InvalidPayload:
    return InvalidPayload(
        f"payload must be an instance of an Event class, not {type(payload).__name__}; "
        "declare class Name(Event, name=…) and pass Name(…)",
        field="payload",
    )


def _promised_to_many(policy: Policy, channel: str) -> InvalidPayload:
    return InvalidPayload(
        f'event {policy.name} has deliver="ack", a promise to one person, and {channel} has many readers; '
        "emit it to each user, or declare a type of its own for the broadcast",
        field="payload",
    )
