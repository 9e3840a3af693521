"""Integers that a browser cannot represent: a number of JavaScript is exact up to 2**53 - 1 (RFC 8259, section 6)."""

from __future__ import annotations

import datetime as dt
import enum
import json
import uuid
from collections.abc import Mapping
from decimal import Decimal
from types import NoneType
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel

from eventbus.errors import InvalidPayload
from eventbus.events.annotations import annotation_parts, nested_models

__all__ = ["MAX_INTEGER", "check_fields", "check_json", "integer_fields"]

MAX_INTEGER: Final = 2**53 - 1
"""``Number.MAX_SAFE_INTEGER`` of JavaScript."""

_MIN_INTEGER: Final = -MAX_INTEGER
# Types whose JSON has no integer, or none that is large.
_WITHOUT = (str, bytes, bool, float, NoneType, Decimal, uuid.UUID, dt.date, dt.time, dt.timedelta)
_DIGITS: Final = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))  # each digit -> 0
_LONG: Final = b"0" * len(str(MAX_INTEGER))


def integer_fields(cls: type[BaseModel]) -> tuple[str, ...] | None:
    """Return the fields of a class that may hold an integer.

    Args:
        cls: a complete model.

    Returns:
        The fields whose value is an integer or None. None if integers may be anywhere: in a list, in a nested model,
        in a field of any type.
    """
    if any(_integer_within(field.annotation) for model in nested_models(cls) for field in model.model_fields.values()):
        return None
    if cls.model_computed_fields or cls.__pydantic_decorators__.field_serializers:
        return None
    names = []
    for name, field in cls.model_fields.items():
        if _integer_within(field.annotation):
            if not _is_integer(field.annotation):
                return None
            names.append(name)
    return tuple(names)


def check_fields(values: Mapping[str, Any], fields: tuple[str, ...], type_: str) -> None:
    """Refuse a payload with a field that a browser would round.

    Args:
        values: the values of the payload's fields.
        fields: ``integer_fields`` of its class.
        type_: its type, for the message.

    Raises:
        InvalidPayload: an integer is beyond ``MAX_INTEGER``, or a value is no integer: pydantic did not validate it.
    """
    field = ""
    try:
        for field in fields:
            value = values[field]
            if value is not None and not _MIN_INTEGER <= value <= MAX_INTEGER:
                raise _too_large(type_, field)
    except (KeyError, TypeError) as error:
        raise InvalidPayload(
            f"{field} of event {type_} must be an integer; model_construct() does not validate it",
            field=field,
        ) from error


def check_json(data: bytes, type_: str) -> None:
    """Refuse the JSON of a payload with an integer that a browser would round.

    Args:
        data: the JSON.
        type_: the event's type, for the message.

    Raises:
        InvalidPayload: an integer is beyond ``MAX_INTEGER``.
    """
    # A run of sixteen digits is rare. Only then the JSON is parsed.
    if _LONG in data.translate(_DIGITS):
        json.loads(data, parse_int=lambda digits: _check(digits, type_))


def _check(digits: str, type_: str) -> int:
    if len(digits) > len(_LONG) + 1 or abs(int(digits)) > MAX_INTEGER:
        raise _too_large(type_, "payload")
    return 0


def _too_large(type_: str, field: str) -> InvalidPayload:
    return InvalidPayload(
        f"{field} of event {type_} is an integer beyond 2**53 - 1, which a browser rounds; declare it as str, "
        "or set EVENTBUS_LARGE_INTEGERS=allow",
        field=field,
        limit=MAX_INTEGER,
    )


def _is_integer(annotation: object) -> bool:
    """Whether every value is an integer or None."""
    return annotation is int or set(get_args(annotation)) == {int, NoneType}


def _integer_within(annotation: object) -> bool:
    """Whether a value may contain an integer, other than in a nested model."""
    return any(_may_be_integer(part) for part in annotation_parts(annotation))


def _may_be_integer(part: object) -> bool:
    if get_origin(part) is not None:
        return False  # list[str]: its arguments are separate parts
    if not isinstance(part, type):
        return part is Any  # otherwise a value of a Literal, an ellipsis, metadata
    if issubclass(part, enum.Enum):
        return any(isinstance(member.value, int) and abs(member.value) > MAX_INTEGER for member in part)
    return not issubclass(part, (*_WITHOUT, BaseModel))
