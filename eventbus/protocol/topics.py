"""Names of channels, topics and patterns: the only place that knows their grammar (``docs/reference/protocol.md``)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final
from uuid import UUID

from eventbus.errors import InvalidName

__all__ = [
    "MAX_ID",
    "MAX_PARTS",
    "MAX_TOPIC",
    "SYSTEM",
    "UserId",
    "broadcast_topic",
    "channel_of",
    "check_id",
    "check_pattern",
    "check_topic",
    "check_user",
    "collection_channel",
    "kind_of",
    "matches",
    "operation_topic",
    "system_topic",
    "user_channel",
    "whole_channel",
]

UserId = str | int | UUID
"""The name of a user: a text, or an integer or UUID, which count as their text."""

MAX_ID: Final = 128
MAX_PARTS: Final = 8
MAX_TOPIC: Final = MAX_PARTS * (MAX_ID + 1)
SYSTEM: Final = "system"

# No glob characters, white space, braces (they are Redis' hash tag), commas or equals signs (they separate a cursor).
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+~|-]{0,127}")
_KINDS: Final = {"user": 2, "collection": 2, SYSTEM: 1}  # how many parts the channel takes


def check_id(value: object, field: str) -> str:
    """Return ``value`` if it is a well-formed id.

    Args:
        value: any object.
        field: the argument that the error names.

    Raises:
        InvalidName: not a string, empty, too long, or with a character that is not allowed.
    """
    if not isinstance(value, str):
        raise InvalidName(f"{field} must be a string, not {type(value).__name__}; convert it with str()", field=field)
    if not value:
        raise InvalidName(f"{field} is empty; give 1 to {MAX_ID} characters", field=field, limit=MAX_ID)
    if len(value) > MAX_ID:
        raise InvalidName(f"{field} has {len(value)} characters; the limit is {MAX_ID}", field=field, limit=MAX_ID)
    if _ID.fullmatch(value) is None:
        raise InvalidName(
            f"{field} {value!r} has a character that is not allowed; use A-Z, a-z, 0-9 and _ . @ + ~ | -, "
            "and begin with A-Z, a-z, 0-9 or _",
            field=field,
        )
    return value


def check_user(value: object, field: str = "user") -> str:
    """Return the text of a user's id.

    Args:
        value: any object. An integer or a UUID, such as a primary key, counts as its text.
        field: the argument that the error names.

    Raises:
        InvalidName: none of these, or a text that is no well-formed id.
    """
    if type(value) is int or isinstance(value, UUID):
        value = str(value)
    return check_id(value, field)


def user_channel(user: UserId) -> str:
    """Return the channel of one user.

    Args:
        user: id of the user.

    Raises:
        InvalidName: the id is malformed (field ``user``).
    """
    return f"user:{check_user(user)}"


@lru_cache(maxsize=8192)
def collection_channel(collection: str) -> str:
    """Return the channel of one collection.

    Args:
        collection: id of the collection.

    Raises:
        InvalidName: the id is malformed (field ``collection``).
    """
    return f"collection:{check_id(collection, 'collection')}"


@lru_cache(maxsize=8192)
def operation_topic(user: str, op: str) -> str:
    """Return the topic of one operation of a user.

    Args:
        user: id of the user.
        op: id of the operation.

    Raises:
        InvalidName: an id is malformed (field ``user`` or ``op``).
    """
    return f"user:{check_id(user, 'user')}:operation:{check_id(op, 'op')}"


@lru_cache(maxsize=8192)
def broadcast_topic(collection: str, topic: str) -> str:
    """Return a topic within a collection.

    Args:
        collection: id of the collection.
        topic: relative to the collection.

    Raises:
        InvalidName: the id or the topic is malformed (field ``collection`` or ``topic``).
    """
    return check_topic(f"{collection_channel(collection)}:{_relative(topic)}")


@lru_cache(maxsize=1024)
def system_topic(topic: str) -> str:
    """Return a topic within ``system``.

    Args:
        topic: relative to ``system``.

    Raises:
        InvalidName: it is malformed (field ``topic``).
    """
    return check_topic(f"{SYSTEM}:{_relative(topic)}")


def _relative(topic: object) -> str:
    if not isinstance(topic, str) or not topic:
        raise InvalidName("topic is empty; name a part such as 'documents'", field="topic")
    return topic


@lru_cache(maxsize=65536)
def channel_of(topic: str) -> str:
    """Return the channel that a topic or pattern belongs to.

    Args:
        topic: a topic or pattern.

    Raises:
        InvalidName: it does not begin with a channel, or names nothing within it, or is too long.
    """
    # Before the cache: clients choose these texts, and long ones would fill the memory.
    if len(topic) > MAX_TOPIC:
        raise InvalidName(
            f"topic {topic[:50]!r}… has {len(topic)} characters; the limit is {MAX_TOPIC}",
            field="topic",
            limit=MAX_TOPIC,
        )
    parts = topic.split(":")
    width = _KINDS.get(parts[0])
    if width is None:
        raise InvalidName(f"topic {topic[:200]!r} must begin with user:, collection: or system", field="topic")
    if len(parts) <= width:
        raise InvalidName(
            f"topic {topic[:200]!r} names a channel only; add a part, or ':*' for all of it", field="topic"
        )
    for part in parts[1:width]:
        check_id(part, "topic")
    return ":".join(parts[:width])


def kind_of(channel: str) -> str:
    """Return ``user``, ``collection`` or ``system``.

    Args:
        channel: a channel.
    """
    return channel.partition(":")[0]


def check_topic(topic: str) -> str:
    """Return ``topic`` if every part of it is well-formed.

    Args:
        topic: any text.

    Raises:
        InvalidName: it is malformed (field ``topic``).
    """
    channel_of(topic)
    _check_parts(topic.split(":"), topic)
    return topic


def check_pattern(pattern: object) -> str:
    """Return ``pattern`` if it is a topic, or a topic whose last part is ``*``.

    Args:
        pattern: any object.

    Raises:
        InvalidName: it is malformed (field ``topic``).
    """
    if not isinstance(pattern, str):
        raise InvalidName("topic must be a string", field="topic")
    channel_of(pattern)
    parts = pattern.split(":")
    _check_parts(parts[:-1] if parts[-1] == "*" else parts, pattern)
    return pattern


def _check_parts(parts: list[str], whole: str) -> None:
    if len(parts) > MAX_PARTS:
        raise InvalidName(
            f"topic {whole[:200]!r} has {len(parts)} parts; the limit is {MAX_PARTS}", field="topic", limit=MAX_PARTS
        )
    for part in parts[1:]:
        check_id(part, "topic")


def whole_channel(channel: str) -> str:
    """Return the pattern that covers everything of a channel.

    Args:
        channel: a channel.
    """
    return f"{channel}:*"


def matches(pattern: str, topic: str) -> bool:
    """Return whether a checked pattern covers a topic: equality, or anything below a last part ``*``.

    Args:
        pattern: a checked pattern.
        topic: a checked topic.
    """
    if pattern.endswith(":*"):
        return topic.startswith(pattern[:-1])
    return pattern == topic
