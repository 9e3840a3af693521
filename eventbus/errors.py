"""All errors of this library, as one tree.

    EventBusError
    ├── InvalidEmission        refused before anything is sent; ``field`` and, where there is one, ``limit``
    │   ├── InvalidName        an id, topic, pattern or type outside the grammar
    │   ├── InvalidPayload     not an event, or an event class that cannot be emitted
    │   └── TooLarge           over ``max_event_bytes``
    ├── RateLimited            over a rate; ``limit`` per second, ``retry_after`` seconds
    ├── InvalidCursor          a cursor that cannot be read
    ├── InvalidAddress         an ``EVENTBUS_REDIS_URL`` that cannot be read; ``part``
    ├── DuplicateEventName     two classes with one name
    ├── InvalidRecord          bytes in Redis that no worker has written
    │   └── NewerFormat        a newer version has written them; ``found`` and ``known``
    ├── NoOperation            ``emit(payload)`` outside any operation
    ├── NotAcknowledgeable     ``receipt.delivered()`` of an event that needs no acknowledgement
    ├── NoDeadLetter           there is no such dead letter
    ├── TooManyRevocations     Redis keeps no more revocations; ``limit``
    ├── InvalidStage           a progress has no such stage, or a weight is out of range
    ├── TooManyDeferred        too many events wait for a task's success or a transaction's commit; ``limit``
    ├── DeliveryFailed         an event that a user had to receive is a dead letter
    ├── UnsupportedVersion     a dependency lacks something that is needed; ``package``, ``version``, ``missing``
    ├── NoServer               a test needs Redis, and no server program starts on this machine
    └── TransportError
        ├── Unavailable        Redis does not answer; the same call may work later
        │   └── NotPermitted   Redis' user lacks a right; ``right``
        └── Refused            Redis answered with an error; the same call fails again

Facts are attributes. ``str(error)`` says what to do.
"""

from __future__ import annotations

__all__ = [
    "DeliveryFailed",
    "DuplicateEventName",
    "EventBusError",
    "InvalidAddress",
    "InvalidCursor",
    "InvalidEmission",
    "InvalidName",
    "InvalidPayload",
    "InvalidRecord",
    "InvalidStage",
    "NewerFormat",
    "NoDeadLetter",
    "NoOperation",
    "NoServer",
    "NotAcknowledgeable",
    "NotPermitted",
    "RateLimited",
    "Refused",
    "TooLarge",
    "TooManyDeferred",
    "TooManyRevocations",
    "TransportError",
    "Unavailable",
    "UnsupportedVersion",
]


class EventBusError(Exception):
    """Base of all errors that this library raises."""


class InvalidEmission(EventBusError, ValueError):
    """The call is refused and nothing was sent.

    Args:
        message: what is wrong and what to do.
        field: the argument that is wrong.
        limit: the bound that it exceeds, or None.
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
    """The event is larger than a gateway would carry.

    Args:
        message: what is wrong and what to do.
        field: the argument that is wrong.
        limit: bytes that are allowed.
        size: bytes of the event.
    """

    def __init__(self, message: str, *, field: str, limit: int, size: int) -> None:
        super().__init__(message, field=field, limit=limit)
        self.size = size


class RateLimited(EventBusError):
    """Too many calls in a second.

    Args:
        message: what is wrong and what to do.
        limit: calls per second that are allowed.
        retry_after: seconds to wait.
    """

    def __init__(self, message: str, *, limit: float, retry_after: float) -> None:
        super().__init__(message)
        self.limit = limit
        self.retry_after = retry_after


class InvalidCursor(EventBusError, ValueError):
    """The text of a cursor cannot be read.

    Args:
        message: what is wrong and what to do.
        text: the cursor; the attribute has 200 characters of it.
    """

    def __init__(self, message: str, *, text: str) -> None:
        super().__init__(message)
        self.text = text[:200]


class InvalidAddress(EventBusError, ValueError):
    """The address of Redis cannot be used. The message does not quote it: it may contain a password.

    Args:
        message: what is wrong and what to do.
        part: the part of the address that is wrong, such as ``port``.
    """

    def __init__(self, message: str, *, part: str) -> None:
        super().__init__(message)
        self.part = part


class DuplicateEventName(EventBusError, TypeError):
    """A second event class has a name that is in use.

    Args:
        name: the name.
        first: path of the class that has it.
        second: path of the class that was declared later.
    """

    def __init__(self, name: str, first: str, second: str) -> None:
        super().__init__(
            f"event name {name!r} is taken: {first} has it, and {second} uses it too; give one of them another name"
        )
        self.name = name
        self.first = first
        self.second = second


class InvalidRecord(EventBusError, ValueError):
    """A record or publication in Redis does not have the form of ``docs/reference/protocol.md``."""


class NewerFormat(InvalidRecord):
    """Data in Redis has a format that this version does not know.

    Args:
        found: the format of the data.
        known: the newest format that this version knows.
    """

    def __init__(self, found: int, known: int) -> None:
        super().__init__(
            f"data in Redis has format {found}, and this version reads up to format {known}: upgrade gateways first, "
            "then workers"
        )
        self.found = found
        self.known = known


class NoOperation(EventBusError, LookupError):
    """``emit(payload)`` was called where no operation is running."""

    def __init__(self) -> None:
        super().__init__(
            "emit(payload) needs a current operation: call it inside a task that start_operation began, "
            "or name user and operation: emit(user, op, payload)"
        )


class NotAcknowledgeable(EventBusError, TypeError):
    """The event needs no acknowledgement, so its delivery cannot be observed.

    Args:
        id_: the event's id.
    """

    def __init__(self, id_: str) -> None:
        super().__init__(f'event {id_} needs no acknowledgement: declare its class with deliver="ack"')
        self.id = id_


class DeliveryFailed(EventBusError):
    """The event is a dead letter.

    Args:
        id_: the event's id.
        channel: its channel.
        reason: why it is a dead letter.
    """

    def __init__(self, id_: str, channel: str, reason: str) -> None:
        super().__init__(
            f"event {id_} of {channel} was not delivered ({reason}); see eventbus dead-letters show {channel} {id_}"
        )
        self.id = id_
        self.channel = channel
        self.reason = reason


class NoDeadLetter(EventBusError, LookupError):
    """The dead letter was requeued or purged, or never existed.

    Args:
        channel: where it was looked for.
        id_: the event's id.
    """

    def __init__(self, channel: str, id_: str) -> None:
        super().__init__(f"{channel} has no dead letter {id_}; see eventbus dead-letters list")
        self.channel = channel
        self.id = id_


class TooManyRevocations(EventBusError, RuntimeError):
    """The revocation is not in force: Redis keeps as many as it may.

    Args:
        limit: how many it keeps.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"nothing was revoked: there are {limit} revocations already; raise EVENTBUS_REVOCATION_LIMIT for all "
            "processes, or change the key of the tokens"
        )
        self.limit = limit


class NoServer(EventBusError, RuntimeError):
    """There is no Redis for tests.

    Args:
        message: what is missing and what to install.
        looked_for: the programs and packages that would do.
    """

    def __init__(self, message: str, *, looked_for: tuple[str, ...]) -> None:
        super().__init__(message)
        self.looked_for = looked_for


class InvalidStage(EventBusError, ValueError):
    """A progress has no such stage, or a stage cannot have this weight.

    Args:
        message: what is wrong and what to do.
        stage: its name.
    """

    def __init__(self, message: str, *, stage: str) -> None:
        super().__init__(message)
        self.stage = stage


class TooManyDeferred(EventBusError, RuntimeError):
    """No more events may wait for a success or a commit.

    Args:
        message: what is wrong and what to do.
        limit: how many may wait.
    """

    def __init__(self, message: str, *, limit: int) -> None:
        super().__init__(message)
        self.limit = limit


class UnsupportedVersion(EventBusError, RuntimeError):
    """An installed dependency lacks something that this library uses.

    Args:
        message: what is missing and what to install.
        package: name of the dependency.
        version: the installed version.
        missing: names that it lacks.
    """

    def __init__(self, message: str, *, package: str, version: str, missing: tuple[str, ...]) -> None:
        super().__init__(message)
        self.package = package
        self.version = version
        self.missing = missing


class TransportError(EventBusError):
    """Redis did not carry out a request.

    Args:
        message: what happened and what to do.
        code: code of the server's error, such as ``READONLY``; empty if the server did not answer.
        slots: slots of a Redis Cluster that do not answer, such as ``0-5460``; empty: it concerns all.
    """

    def __init__(self, message: str = "", *, code: str = "", slots: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.slots = slots


class Unavailable(TransportError):
    """No answer, no connection, or an answer that means "not now". The same call may work later."""


class NotPermitted(Unavailable):
    """The user of ``EVENTBUS_REDIS_URL`` lacks a right. The same call works when the user has it.

    Args:
        message: what happened and what to do.
        right: the command that Redis refused, ``key`` or ``channel``.
    """

    def __init__(self, message: str, *, right: str) -> None:
        super().__init__(message, code="NOPERM")
        self.right = right


class Refused(TransportError):
    """The server answered with an error. The same call would meet it again."""
