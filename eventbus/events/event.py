"""``Event``: a typed fact with its delivery policy in the class statement."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict

from eventbus.errors import InvalidName, InvalidPayload
from eventbus.events.integers import integer_fields
from eventbus.events.registry import registry
from eventbus.events.round_trip import check_fields, json_traits
from eventbus.protocol.policy import Deliver, Keep, Lane, Policy

__all__ = ["MAX_TYPE", "RESERVED_TYPES", "Event", "is_event_type"]

MAX_TYPE: Final = 64
RESERVED_TYPES: Final = frozenset({"error", "gap", "message", "open", "position", "status"})
"""Names that no event class may have. The client and ``EventSource`` use them for other events."""

_TYPE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")
_CHOICES: Final = {"lane": ("high", "normal", "low"), "keep": ("log", "latest", "nothing"), "deliver": ("live", "ack")}


class Event(BaseModel):
    """Base of an application's events.

        class ChunkEmbedded(Event, name="chunk.embedded", lane="low", keep="latest", key="document"):
            document: str
            done: int
            total: int

    A subclass without ``name`` is a base for others and cannot be emitted. Instances are frozen. Unknown members are
    refused, and so are NaN and infinity, which JSON cannot express; in a nested model ``emit`` refuses them. In a
    member that may be ``Any`` they become null. ``emit`` also refuses integers beyond 2**53 - 1, which a browser
    rounds: declare a 64-bit id as ``str``. ``EVENTBUS_LARGE_INTEGERS=allow`` lets them pass.

    The JSON has a member's alias, where it has one. A member cannot be excluded: no page would receive it.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        # A member with a default is always sent, so a page may rely on it.
        json_schema_serialization_defaults_required=True,
    )

    __policy__: ClassVar[Policy | None] = None
    # Whether the JSON needs more than pydantic's default. True also for a class that is incomplete at its statement.
    __special_json__: ClassVar[bool] = True

    def __init_subclass__(
        cls,
        *,
        name: str | None = None,
        lane: Lane = "normal",
        keep: Keep = "log",
        ttl: timedelta | None = None,
        key: str | tuple[str, ...] = (),
        deliver: Deliver = "live",
        **config: Any,
    ) -> None:
        super().__init_subclass__(**config)
        cls.__policy__ = None
        if name is not None:
            cls.__policy__ = Policy(name, lane, keep, ttl, (key,) if isinstance(key, str) else tuple(key), deliver)

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        # Pydantic calls this once the fields are known, which the conflation key is checked against.
        if cls.__policy__ is not None:
            _check(cls.__policy__, cls)
            check_fields(cls, f"event class {cls.__qualname__}")
            cls.__special_json__ = not (cls.__pydantic_complete__ and json_traits(cls).plain)
            if cls.__pydantic_complete__:
                cls.__policy__ = replace(cls.__policy__, integers=integer_fields(cls))
            registry.add(cls)

    @classmethod
    def policy(cls) -> Policy:
        """Return the delivery policy.

        Raises:
            InvalidPayload: the class has no name.
        """
        if cls.__policy__ is None:
            raise InvalidPayload(
                f'{cls.__name__} has no event name; declare it as class {cls.__name__}(Event, name="…")',
                field="payload",
            )
        return cls.__policy__


def is_event_type(text: str) -> bool:
    """Return whether a text can be the type of an application's event.

    Types that begin with ``bus.`` belong to the gateway.

    Args:
        text: the type.
    """
    return len(text) <= MAX_TYPE and _TYPE.fullmatch(text) is not None and not text.startswith("bus.")


def _check(policy: Policy, cls: type[Event]) -> None:
    """Raise at the class statement, where the mistake is, for a policy that cannot be kept."""
    where = f"event class {cls.__qualname__}"
    _check_name(policy.name, where)
    for field, allowed in _CHOICES.items():
        if getattr(policy, field) not in allowed:
            raise InvalidPayload(f"{where}: {field} must be one of {', '.join(allowed)}", field=field)
    if policy.ttl is not None and policy.ttl < timedelta(seconds=1):
        raise InvalidPayload(f"{where}: ttl must be at least one second", field="ttl", limit="1 s")
    if policy.key and policy.keep != "latest":
        raise InvalidPayload(f'{where}: key is for keep="latest" only', field="key")
    if policy.deliver == "ack" and policy.keep != "log":
        raise InvalidPayload(f'{where}: deliver="ack" needs keep="log"', field="deliver")
    for field in policy.key:
        if field not in cls.model_fields:
            raise InvalidPayload(f"{where}: key names {field!r}, which is not a field", field="key")


def _check_name(name: str, where: str) -> None:
    if len(name) > MAX_TYPE or _TYPE.fullmatch(name) is None:
        raise InvalidName(
            f"{where}: name {name!r} must be lower-case names joined by dots, at most {MAX_TYPE} characters",
            field="name",
            limit=MAX_TYPE,
        )
    if name.startswith("bus."):
        raise InvalidName(f"{where}: name {name!r} is reserved; bus.* are events of the gateway", field="name")
    if name in RESERVED_TYPES:
        raise InvalidName(
            f"{where}: name {name!r} is reserved; the client or EventSource has an event of this name. "
            f"Choose another one, for example 'document.{name}'",
            field="name",
        )
