"""Revocations: sessions that were ended and tokens that are refused, and the port through which gateways read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, get_args

from eventbus.backends.audit import AuditEntry, Via
from eventbus.errors import InvalidName, InvalidRecord
from eventbus.protocol.topics import UserId, check_user

__all__ = [
    "CHANGES_PER_READING",
    "ENDED_LIFE",
    "Revocation",
    "RevocationKind",
    "RevocationRequest",
    "RevocationStore",
    "end_sessions",
    "parse_revocation",
    "revoke_token",
    "revoke_tokens",
]

RevocationKind = Literal["sessions", "user", "token"]

CHANGES_PER_READING: Final = 1_000

ENDED_LIFE: Final = 3_600
"""Seconds for which a gateway that was cut off from Redis still learns that sessions have ended."""

_NOW: Final = 0
_NOT_ABOUT_TIME: Final = -1
_MAX_TEXT: Final = 200
_MAX_TOKEN_ID: Final = 256
_LAST_MOMENT: Final = 2**53 // 1000


@dataclass(frozen=True, slots=True)
class Revocation:
    """Something that was ended or refused.

    Attributes:
        kind: ``sessions``: the user's sessions of that time have ended. ``user``: tokens of the user that were
            issued earlier are refused. ``token``: one token is refused.
        subject: the user's id, or the token's ``jti``.
        issued_before: for ``user``: tokens issued before are refused, in seconds since 1970; otherwise -1.
        at: when it was asked for, in milliseconds since 1970.
        until: when it is forgotten, in milliseconds since 1970.
        by: who asked for it.
        reason: why; the pages of the user receive it.
        number: number of the change; later ones are higher.
    """

    kind: RevocationKind
    subject: str
    issued_before: int
    at: int
    until: int
    by: str
    reason: str
    number: int


@dataclass(frozen=True, slots=True)
class RevocationRequest:
    """A request to revoke. The functions of this module make and check it.

    Attributes:
        kind: as in ``Revocation``.
        subject: as in ``Revocation``.
        issued_before: seconds since 1970; 0: now; -1: the kind has none.
        by: who asks.
        reason: why.
    """

    kind: RevocationKind
    subject: str
    issued_before: int
    by: str
    reason: str

    @property
    def member(self) -> str:
        """The name of the entry."""
        return f"{self.kind} {self.subject}"

    def audit_entry(self, via: Via) -> AuditEntry:
        """Return the entry of the audit log.

        Args:
            via: how the request came.
        """
        action = "sessions.end" if self.kind == "sessions" else "tokens.revoke"
        kind = "token" if self.kind == "token" else "user"
        return AuditEntry(action, self.by, via, f"{kind}:{self.subject}")


class RevocationStore(Protocol):
    """Keeps revocations for all gateways. Every method raises ``Unavailable`` or ``Refused``."""

    async def revoke(self, request: RevocationRequest) -> Revocation:
        """Revoke, and announce it to all gateways.

        Args:
            request: what to revoke.

        Returns:
            The revocation, which is in force.

        Raises:
            TooManyRevocations: there are as many as may be.
        """

    async def changes(self, after: int) -> Sequence[Revocation]:
        """Read what was revoked after a change, by number.

        Args:
            after: number of the last known change; 0: read all.

        Returns:
            At most ``CHANGES_PER_READING`` of them. If there are as many, there may be more.
        """


def end_sessions(user: UserId, reason: str, by: str) -> RevocationRequest:
    """Make a request to end a user's sessions.

    Args:
        user: the user's id.
        reason: why; the pages receive it.
        by: who asks.

    Returns:
        The request.

    Raises:
        InvalidName: the id is malformed, or a text is too long or has more than one line.
    """
    return RevocationRequest("sessions", check_user(user), _NOT_ABOUT_TIME, _text(by, "by"), _text(reason, "reason"))


def revoke_tokens(user: UserId, issued_before: float | None, reason: str, by: str) -> RevocationRequest:
    """Make a request to refuse the tokens of a user that were issued before a moment.

    Args:
        user: the user's id.
        issued_before: seconds since 1970; None: now.
        reason: why; the pages receive it.
        by: who asks.

    Returns:
        The request.

    Raises:
        InvalidName: the id is malformed, a text is too long or has more than one line, or the moment is none.
    """
    moment: float = _NOW
    if issued_before is not None:
        if not 0 < issued_before <= _LAST_MOMENT:
            raise InvalidName(
                f"issued_before must be seconds since 1970, at most {_LAST_MOMENT}", field="issued_before"
            )
        moment = math.ceil(issued_before)
    return RevocationRequest("user", check_user(user), int(moment), _text(by, "by"), _text(reason, "reason"))


def revoke_token(id: str, reason: str, by: str) -> RevocationRequest:
    """Make a request to refuse one token.

    Args:
        id: the token's ``jti``.
        reason: why; the pages receive it.
        by: who asks.

    Returns:
        The request.

    Raises:
        InvalidName: a text is empty, too long or has more than one line.
    """
    if not id:
        raise InvalidName("the id of a token is empty; give its claim jti", field="id")
    subject = _text(id, "id", _MAX_TOKEN_ID)
    return RevocationRequest("token", subject, _NOT_ABOUT_TIME, _text(by, "by"), _text(reason, "reason"))


def _text(value: str, field: str, most: int = _MAX_TEXT) -> str:
    if len(value) > most:
        raise InvalidName(f"{field} has {len(value)} characters; the limit is {most}", field=field, limit=most)
    if not value.isprintable():
        raise InvalidName(f"{field} must be one line of printable characters", field=field)
    return value


def parse_revocation(member: bytes, entry: bytes, number: int) -> Revocation:
    """Parse an entry.

    Args:
        member: its name.
        entry: its value.
        number: number of its last change.

    Returns:
        The revocation.

    Raises:
        InvalidRecord: this library did not write it.
    """
    try:
        kind, _, subject = member.decode().partition(" ")
        times, by, reason = entry.decode().split("\n")
        issued_before, at, until = map(int, times.split())
    except ValueError as error:
        raise InvalidRecord(f"cannot read revocation {member[:100]!r}: {error}") from None
    for known in get_args(RevocationKind):
        if kind == known:
            return Revocation(known, subject, issued_before, at, until, by, reason, number)
    raise InvalidRecord(f"cannot read revocation {member[:100]!r}: unknown kind")
