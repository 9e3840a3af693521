"""Everything that can go wrong, as one tree.

    EventBusError
    ├── InvalidEmission        refused before anything is sent; ``field`` and, where there is one, ``limit``
    │   ├── InvalidName        an id, topic, pattern or type that does not keep the grammar
    │   ├── InvalidPayload     not an event, or no name and so no policy
    │   └── TooLarge           over ``max_event_bytes``
    ├── RateLimited            over a rate; ``limit`` per second, ``retry_after`` seconds
    ├── InvalidCursor          a resume position that cannot be read
    ├── DuplicateEventName     two classes with one name
    ├── InvalidRecord          what arrived from Redis is not what a worker writes
    ├── NoOperation            ``emit(payload)`` outside any operation
    ├── NotAcknowledgeable              ``receipt.delivered()`` of an event that nobody has to acknowledge
    ├── NoDeadLetter           there is no such dead letter
    ├── InvalidStage           a stage of a progress that there is not, or a weight that cannot be
    ├── TooManyDeferred        too many events wait for a task's success or a transaction's commit; ``limit``
    ├── DeliveryFailed                an event that a person was to get is among the dead letters
    ├── UnsupportedVersion     a dependency lacks something that is needed; ``package``, ``version``, ``missing``
    ├── NoServer               a test wants a Redis, and this machine has none that starts
    └── TransportError
        ├── Unavailable        not answering; worth trying again
        └── Refused            answered with an error; trying again will not help

Facts are attributes; ``str(error)`` says what to do about them.
"""

from __future__ import annotations

__all__ = [
    "DeliveryFailed",
    "DuplicateEventName",
    "EventBusError",
    "InvalidCursor",
    "InvalidEmission",
    "InvalidName",
    "InvalidPayload",
    "InvalidRecord",
    "InvalidStage",
    "NoDeadLetter",
    "NoOperation",
    "NoServer",
    "NotAcknowledgeable",
    "RateLimited",
    "Refused",
    "TooLarge",
    "TooManyDeferred",
    "TransportError",
    "Unavailable",
    "UnsupportedVersion",
]


class EventBusError(Exception):
    """Whatever this library raises of its own."""


class InvalidEmission(EventBusError, ValueError):
    """The call is refused and nothing was sent.

    Attributes: ``field``, the argument that is wrong; ``limit``, the bound it broke (or None).
    """

    def __init__(self, message: str, *, field: str, limit: int | str | None = None) -> None:
        super().__init__(message)
        self.field = field
        self.limit = limit


class InvalidName(InvalidEmission):
    """An id, topic, pattern or type name outside the grammar of ``docs/reference/protocol.md``."""


class InvalidPayload(InvalidEmission):
    """The payload is not an event that can be emitted."""


class TooLarge(InvalidEmission):
    """The event is larger than a gateway would carry. ``size`` and ``limit`` are bytes."""

    def __init__(self, message: str, *, field: str, limit: int, size: int) -> None:
        super().__init__(message, field=field, limit=limit)
        self.size = size


class RateLimited(EventBusError):
    """Too many in a second. ``limit`` is what is allowed a second, ``retry_after`` the seconds to wait."""

    def __init__(self, message: str, *, limit: float, retry_after: float) -> None:
        super().__init__(message)
        self.limit = limit
        self.retry_after = retry_after


class InvalidCursor(EventBusError, ValueError):
    """The cursor's text cannot be read. ``text`` is what was given, shortened."""

    def __init__(self, message: str, *, text: str) -> None:
        super().__init__(message)
        self.text = text[:200]


class DuplicateEventName(EventBusError, TypeError):
    """A second event class took a name that is in use. ``first`` and ``second`` are the classes' paths."""

    def __init__(self, name: str, first: str, second: str) -> None:
        super().__init__(
            f"event name {name!r} is taken: {first} has it, {second} wants it too; give one of them another name"
        )
        self.name = name
        self.first = first
        self.second = second


class InvalidRecord(EventBusError, ValueError):
    """A record or publication in Redis does not have the form of ``docs/reference/protocol.md``."""


class NoOperation(EventBusError, LookupError):
    """``emit(payload)`` was called where no operation is running."""

    def __init__(self) -> None:
        super().__init__(
            "emit(payload) needs a current operation: call it inside a task that start_operation began, "
            "or name user and operation: emit(user, op, payload)"
        )


class NotAcknowledgeable(EventBusError, TypeError):
    """Nobody acknowledges this event, so nobody can know that it has arrived."""

    def __init__(self, id_: str) -> None:
        super().__init__(f'event {id_} is not acknowledged by anybody: declare its class with deliver="ack"')
        self.id = id_


class DeliveryFailed(EventBusError):
    """The event is among the dead letters. Attributes: ``id``, ``channel``, ``reason``."""

    def __init__(self, id_: str, channel: str, reason: str) -> None:
        super().__init__(
            f"event {id_} of {channel} was given up on ({reason}); see eventbus dead-letters show {channel} {id_}"
        )
        self.id = id_
        self.channel = channel
        self.reason = reason


class NoDeadLetter(EventBusError, LookupError):
    """It was requeued or purged, or never was. Attributes: ``channel``, ``id``."""

    def __init__(self, channel: str, id_: str) -> None:
        super().__init__(f"{channel} has no dead letter {id_}; see eventbus dead-letters list")
        self.channel = channel
        self.id = id_


class NoServer(EventBusError, RuntimeError):
    """There is no Redis for tests. ``looked_for`` names the programs and packages that would do."""

    def __init__(self, message: str, *, looked_for: tuple[str, ...]) -> None:
        super().__init__(message)
        self.looked_for = looked_for


class InvalidStage(EventBusError, ValueError):
    """A progress has no such stage, or a stage cannot weigh so much. ``stage`` is its name."""

    def __init__(self, message: str, *, stage: str) -> None:
        super().__init__(message)
        self.stage = stage


class TooManyDeferred(EventBusError, RuntimeError):
    """No more events may wait for a success or a commit. ``limit`` is how many may."""

    def __init__(self, message: str, *, limit: int) -> None:
        super().__init__(message)
        self.limit = limit


class UnsupportedVersion(EventBusError, RuntimeError):
    """An installed dependency lacks something that this library uses.

    Attributes: ``package``, its name; ``version``, the installed one; ``missing``, names of what it lacks.
    """

    def __init__(self, message: str, *, package: str, version: str, missing: tuple[str, ...]) -> None:
        super().__init__(message)
        self.package = package
        self.version = version
        self.missing = missing


class TransportError(EventBusError):
    """Redis did not do what was asked."""


class Unavailable(TransportError):
    """No answer, no connection, or an answer that says "not now". The same call may work later."""


class Refused(TransportError):
    """The server answered with an error that repeating the call would meet again."""
