"""Topics from the arguments of ``emit``, ``broadcast`` and ``announce``."""

from __future__ import annotations

from eventbus.errors import InvalidName, InvalidPayload, NoOperation
from eventbus.operations.events import current_operation
from eventbus.protocol.topics import broadcast_topic, check_user, operation_topic, system_topic

__all__ = ["target_of", "topic_of_announcement", "topic_of_broadcast"]


def target_of(args: tuple[object, ...]) -> tuple[str, object]:
    """Return topic and payload of a call of ``emit``.

    Args:
        args: user id, operation id and event; or the event alone, inside an operation.

    Raises:
        InvalidEmission: another number of arguments, or an id that is malformed.
        NoOperation: the event alone, outside any operation.
    """
    match args:
        case (user, op, payload):
            return operation_topic(user if type(user) is str else check_user(user), _text(op, "op")), payload
        case (payload,):
            operation = current_operation.get()
            if operation is None:
                raise NoOperation
            return operation.topic, payload
    raise InvalidPayload("call emit(user, op, payload), or emit(payload) inside a task", field="payload")


def topic_of_broadcast(collection: object, topic: object) -> str:
    """Return the topic of a call of ``broadcast``.

    Args:
        collection: id of the collection.
        topic: relative to the collection.

    Raises:
        InvalidName: one of them is malformed.
    """
    return broadcast_topic(_text(collection, "collection"), _text(topic, "topic"))


def topic_of_announcement(topic: object) -> str:
    """Return the topic of a call of ``announce``.

    Args:
        topic: relative to ``system``.

    Raises:
        InvalidName: it is malformed.
    """
    return system_topic(_text(topic, "topic"))


def _text(value: object, field: str) -> str:
    # Before the caches of topics: 1 and True are equal keys there, and a list cannot be a key.
    if type(value) is not str:
        raise InvalidName(f"{field} must be a string, not {type(value).__name__}; convert it with str()", field=field)
    return value
