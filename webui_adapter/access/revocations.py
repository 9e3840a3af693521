"""The revocations that this instance knows: which principals they concern. No I/O; time is an argument."""

from __future__ import annotations

from collections.abc import Iterable

from eventbus.backends.revocations import Revocation
from webui_adapter.access.principal import Principal

__all__ = ["Revocations", "concerns"]


def concerns(revocation: Revocation, principal: Principal) -> bool:
    """Return whether a revocation ends the sessions of a principal.

    A token that does not say when it was issued counts as issued before any moment.

    Args:
        revocation: the revocation.
        principal: the principal of a session.
    """
    match revocation.kind:
        case "sessions":
            return principal.user == revocation.subject
        case "user":
            return principal.user == revocation.subject and (principal.issued or 0.0) < revocation.issued_before
        case "token":
            return principal.token_id == revocation.subject


class Revocations:
    """The revoked tokens. Its length is their number."""

    def __init__(self) -> None:
        self._users: dict[str, Revocation] = {}
        self._tokens: dict[str, Revocation] = {}

    def __len__(self) -> int:
        return len(self._users) + len(self._tokens)

    def add(self, changes: Iterable[Revocation], now_ms: float) -> None:
        """Note changes, and forget what is over.

        Args:
            changes: the changes in order.
            now_ms: milliseconds since 1970.
        """
        for revocation in changes:
            if revocation.kind == "user":
                self._users[revocation.subject] = revocation
            elif revocation.kind == "token":
                self._tokens[revocation.subject] = revocation
        for known in (self._users, self._tokens):
            for subject in [subject for subject, revocation in known.items() if revocation.until <= now_ms]:
                del known[subject]

    def find(self, principal: Principal, now_ms: float) -> Revocation | None:
        """Return the revocation that refuses a principal's token, or None.

        Args:
            principal: what a valid token says.
            now_ms: milliseconds since 1970.
        """
        of_token = None if principal.token_id is None else self._tokens.get(principal.token_id)
        for revocation in (self._users.get(principal.user), of_token):
            if revocation is not None and revocation.until > now_ms and concerns(revocation, principal):
                return revocation
        return None
