"""Commands of clients: JSON in, typed values out. No I/O."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Final, cast, get_args

from eventbus.errors import InvalidCursor, InvalidName
from eventbus.operations.state import OperationState
from eventbus.protocol.cursor import Cursor, Position, parse_cursor, parse_position
from eventbus.protocol.topics import check_id, check_pattern
from webui_adapter.errors import CommandRefused

__all__ = [
    "MAX_ACKS",
    "MAX_LISTED",
    "Ack",
    "Auth",
    "Cancel",
    "Command",
    "ListOperations",
    "Ping",
    "ShowOperation",
    "Subscribe",
    "Unsubscribe",
    "check_limit",
    "check_name",
    "check_states",
    "parse_command",
]

Ref = str | float | None
_MAX_REF = 128
MAX_ACKS = 100
MAX_LISTED = 200
_LISTED = 50
_STATES: Final[tuple[str, ...]] = get_args(OperationState)


@dataclass(frozen=True, slots=True)
class Auth:
    """A token. The first one also says where to resume and what to read.

    Attributes:
        token: the token.
        cursor: where to resume.
        topics: patterns in addition to the default ones.
        ref: the command's reference, which the answer repeats.
    """

    token: str
    cursor: Cursor
    topics: tuple[str, ...]
    ref: Ref = None


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Read a pattern.

    Attributes:
        topic: the pattern.
        since: the position to start from; None: the present.
        ref: the command's reference.
    """

    topic: str
    since: Position | None
    ref: Ref = None


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Stop reading a pattern.

    Attributes:
        topic: the pattern.
        ref: the command's reference.
    """

    topic: str
    ref: Ref = None


@dataclass(frozen=True, slots=True)
class Ping:
    """Ask for an answer.

    Attributes:
        ref: the command's reference.
    """

    ref: Ref = None


@dataclass(frozen=True, slots=True)
class Ack:
    """Acknowledge events of the user's channel.

    Attributes:
        ids: event ids; empty if ``upto`` is set.
        upto: acknowledges every event up to this position.
        ref: the command's reference.
    """

    ids: tuple[str, ...]
    upto: Position | None
    ref: Ref = None


@dataclass(frozen=True, slots=True)
class ListOperations:
    """List operations.

    Attributes:
        limit: how many, 1 to ``MAX_LISTED``.
        states: an operation needs one of them; empty: any.
        user: another user's operations; needs the admin scope. None: the user's own.
        ref: the command's reference.
    """

    limit: int
    states: tuple[OperationState, ...]
    user: str | None = None
    ref: Ref = None


@dataclass(frozen=True, slots=True)
class ShowOperation:
    """Show one operation and its running tasks.

    Attributes:
        operation: the operation's id.
        user: as in ``ListOperations``.
        ref: the command's reference.
    """

    operation: str
    user: str | None = None
    ref: Ref = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel one operation.

    Attributes:
        operation: the operation's id.
        user: as in ``ListOperations``.
        ref: the command's reference.
    """

    operation: str
    user: str | None = None
    ref: Ref = None


Command = Auth | Subscribe | Unsubscribe | Ack | ListOperations | ShowOperation | Cancel | Ping


def parse_command(text: str | bytes) -> Command:
    """Read a command.

    Args:
        text: the JSON.

    Returns:
        The command.

    Raises:
        CommandRefused: ``bad_json``, ``bad_command`` or ``bad_topic``, with the field.
    """
    try:
        members = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise CommandRefused("bad_json", "a command is a JSON object") from None
    if not isinstance(members, dict):
        raise CommandRefused("bad_json", "a command is a JSON object")
    ref = _ref(members)
    try:
        return _read(members, ref)
    except CommandRefused as error:
        error.ref = ref
        raise
    except InvalidName as error:
        raise CommandRefused("bad_topic", str(error), field="topic", limit=_number(error.limit), ref=ref) from None
    except InvalidCursor as error:
        field = "from" if members.get("do") == "subscribe" else "cursor"
        raise CommandRefused("bad_command", str(error), field=field, ref=ref) from None


def _read(members: dict[str, object], ref: Ref) -> Command:
    match members.get("do"):
        case "auth":
            token = members.get("token")
            if not isinstance(token, str):
                raise CommandRefused("bad_command", "auth needs a token, a string", field="token")
            return Auth(token, _cursor(members), _topics(members), ref)
        case "subscribe":
            since = members.get("from")
            if since is not None and not isinstance(since, str | int):
                raise CommandRefused("bad_command", "from must read epoch.offset or 0", field="from")
            topic = check_pattern(members.get("topic"))
            return Subscribe(topic, None if since is None else parse_position(str(since)), ref)
        case "unsubscribe":
            return Unsubscribe(check_pattern(members.get("topic")), ref)
        case "ack":
            return _ack(members, ref)
        case "operations" | "operation" | "cancel" as do:
            return _of_operations(do, members, ref)
        case "ping":
            return Ping(ref)
    commands = "auth, subscribe, unsubscribe, ack, operations, operation, cancel or ping"
    raise CommandRefused("bad_command", f"do must be {commands}", field="do")


def _of_operations(do: str, members: dict[str, object], ref: Ref) -> Command:
    user = members.get("user")
    whose = None if user is None else check_name(user, "user")
    if do == "operations":
        return ListOperations(check_limit(members.get("limit")), check_states(members.get("state")), whose, ref)
    operation = check_name(members.get("operation"), "operation")
    return ShowOperation(operation, whose, ref) if do == "operation" else Cancel(operation, whose, ref)


def check_limit(limit: object) -> int:
    """Check how many operations a client asks for.

    Args:
        limit: the member of the command; None: the default.

    Returns:
        The number.

    Raises:
        CommandRefused: it is not an integer from 1 to ``MAX_LISTED``.
    """
    if limit is None:
        return _LISTED
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_LISTED:
        text = f"limit is a whole number from 1 to {MAX_LISTED}"
        raise CommandRefused("bad_command", text, field="limit", limit=MAX_LISTED)
    return limit


def check_states(states: object) -> tuple[OperationState, ...]:
    """Check the states that a client asks for.

    Args:
        states: the member of the command; None: any state.

    Returns:
        The states.

    Raises:
        CommandRefused: it is not a list of states.
    """
    if states is None:
        return ()
    if not isinstance(states, list) or len(states) > len(_STATES) or any(state not in _STATES for state in states):
        text = f"state is a list of at most {len(_STATES)} of {', '.join(_STATES)}"
        raise CommandRefused("bad_command", text, field="state", limit=len(_STATES))
    return tuple(cast("OperationState", state) for state in states)


def check_name(text: object, field: str) -> str:
    """Check an id.

    Args:
        text: the member of the command.
        field: the name of this member.

    Returns:
        The id.

    Raises:
        CommandRefused: it is not a valid id.
    """
    try:
        return check_id(text, field)
    except InvalidName as error:
        raise CommandRefused("bad_command", str(error), field=field, limit=_number(error.limit)) from None


def _number(limit: int | str | None) -> int | None:
    return limit if isinstance(limit, int) else None


def _ack(members: dict[str, object], ref: Ref) -> Ack:
    ids, upto = members.get("ids"), members.get("upto")
    if (ids is None) == (upto is None):
        raise CommandRefused("bad_command", "ack needs ids or upto, one of them", field="ids")
    if upto is not None:
        if not isinstance(upto, str):
            raise CommandRefused("bad_command", "upto must read epoch.offset", field="upto")
        try:
            return Ack((), parse_position(upto), ref)
        except InvalidCursor as error:
            raise CommandRefused("bad_command", str(error), field="upto") from None
    if not isinstance(ids, list) or not ids or len(ids) > MAX_ACKS:
        raise CommandRefused("bad_command", f"ids is a list of 1 to {MAX_ACKS} ids", field="ids", limit=MAX_ACKS)
    return Ack(tuple(check_name(id_, "ids") for id_ in ids), None, ref)


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _ref(members: dict[str, object]) -> Ref:
    ref = members.get("ref")
    if isinstance(ref, str) and len(ref) <= _MAX_REF:
        return ref
    if isinstance(ref, int) and not isinstance(ref, bool):
        return ref
    # 1e999 is valid JSON, but Python reads it as infinity, which JSON cannot express.
    if isinstance(ref, float) and math.isfinite(ref):
        return ref
    return None


def _cursor(members: dict[str, object]) -> Cursor:
    text = members.get("cursor")
    if text is None:
        return {}
    if not isinstance(text, str):
        raise CommandRefused("bad_command", "cursor must be a string", field="cursor")
    return parse_cursor(text)


def _topics(members: dict[str, object]) -> tuple[str, ...]:
    topics = members.get("topics")
    if topics is None:
        return ()
    if not isinstance(topics, list):
        raise CommandRefused("bad_command", "topics must be a list of strings", field="topics")
    return tuple(check_pattern(topic) for topic in topics)
