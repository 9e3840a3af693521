"""The clients that end sessions and revoke tokens, for applications and the command line."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

from eventbus.backends.audit import Via, log_entry
from eventbus.backends.redis.access.revocation_store import RedisRevocations
from eventbus.backends.redis.audit.audit_log import audit_commands
from eventbus.backends.redis.publisher import RedisPublisher
from eventbus.backends.redis.reader import RedisReader
from eventbus.backends.redis.scripts import revocations
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.backends.revocations import (
    CHANGES_PER_READING,
    Revocation,
    RevocationRequest,
    end_sessions,
    revoke_token,
    revoke_tokens,
)
from eventbus.protocol.topics import UserId
from eventbus.settings import BusSettings

__all__ = ["AsyncSessions", "Sessions"]

_APPLICATION: Final = "application"


class Sessions:
    """Ends sessions and revokes tokens at all gateways. It has one connection, for one thread at a time; a context
    manager.

    Every method raises ``Unavailable`` or ``Refused``.

    Args:
        settings: address, limits and the keys' prefix; the default reads the environment.
        via: how the calls come, for the audit log.
    """

    def __init__(self, settings: BusSettings | None = None, *, via: Via = "python") -> None:
        self._settings = settings or BusSettings()
        self._via = via
        self._keys = Keys.of(self._settings)
        self._redis = RedisPublisher(self._settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()

    def end(self, user: UserId, reason: str = "", *, by: str = _APPLICATION) -> Revocation:
        """End the open sessions of a user. Their tokens stay valid.

        Args:
            user: the user's id.
            reason: why; the pages receive it.
            by: who asks, for the list of revocations.

        Returns:
            The revocation. All gateways have carried it out within two seconds.

        Raises:
            InvalidName: the id is malformed, or a text is too long or has more than one line.
            TooManyRevocations: Redis keeps as many as it may.
        """
        return self._revoke(end_sessions(user, reason, by))

    def revoke_tokens(
        self, user: UserId, issued_before: float | None = None, reason: str = "", *, by: str = _APPLICATION
    ) -> Revocation:
        """Refuse the tokens of a user that were issued before a moment, and end the sessions that they opened.

        Args:
            user: the user's id.
            issued_before: seconds since 1970; None: now.
            reason: why; the pages receive it.
            by: who asks, for the list of revocations.

        Returns:
            The revocation. All gateways have carried it out within two seconds.

        Raises:
            InvalidName: an argument is malformed.
            TooManyRevocations: Redis keeps as many as it may.
        """
        return self._revoke(revoke_tokens(user, issued_before, reason, by))

    def revoke_token(self, id: str, reason: str = "", *, by: str = _APPLICATION) -> Revocation:
        """Refuse one token, and end the sessions that it opened.

        Args:
            id: the token's claim ``jti``.
            reason: why; the pages receive it.
            by: who asks, for the list of revocations.

        Returns:
            The revocation. All gateways have carried it out within two seconds.

        Raises:
            InvalidName: an argument is malformed.
            TooManyRevocations: Redis keeps as many as it may.
        """
        return self._revoke(revoke_token(id, reason, by))

    def revocations(self) -> list[Revocation]:
        """Return all revocations that Redis keeps, the oldest change first."""
        found: list[Revocation] = []
        while True:
            part = self._redis.run(revocations.changes(self._keys, found[-1].number if found else 0))
            found += part
            if len(part) < CHANGES_PER_READING:
                return found

    def _revoke(self, request: RevocationRequest) -> Revocation:
        entry = request.audit_entry(self._via)
        self._redis.execute(*audit_commands(self._settings, self._keys, entry))
        log_entry(entry)
        return self._redis.run(revocations.revoke(self._settings, self._keys, request))


class AsyncSessions:
    """``Sessions`` for an event loop; an asynchronous context manager.

    Args:
        settings: address, limits and the keys' prefix; the default reads the environment.
    """

    def __init__(self, settings: BusSettings | None = None) -> None:
        settings = settings or BusSettings()
        self._reader = RedisReader(settings)
        self._store = RedisRevocations(settings, self._reader)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection."""
        await self._reader.aclose()

    async def end(self, user: UserId, reason: str = "", *, by: str = _APPLICATION) -> Revocation:
        """See ``Sessions.end``.

        Args:
            user: the user's id.
            reason: why; the pages receive it.
            by: who asks, for the list of revocations.

        Returns:
            The revocation.
        """
        return await self._store.revoke(end_sessions(user, reason, by))

    async def revoke_tokens(
        self, user: UserId, issued_before: float | None = None, reason: str = "", *, by: str = _APPLICATION
    ) -> Revocation:
        """See ``Sessions.revoke_tokens``.

        Args:
            user: the user's id.
            issued_before: seconds since 1970; None: now.
            reason: why; the pages receive it.
            by: who asks, for the list of revocations.

        Returns:
            The revocation.
        """
        return await self._store.revoke(revoke_tokens(user, issued_before, reason, by))

    async def revoke_token(self, id: str, reason: str = "", *, by: str = _APPLICATION) -> Revocation:
        """See ``Sessions.revoke_token``.

        Args:
            id: the token's claim ``jti``.
            reason: why; the pages receive it.
            by: who asks, for the list of revocations.

        Returns:
            The revocation.
        """
        return await self._store.revoke(revoke_token(id, reason, by))
