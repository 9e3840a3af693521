"""Authentication of sessions: the token that opens one, and the fresh token that extends it."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from eventbus.protocol.cursor import Cursor
from eventbus.protocol.topics import channel_of
from webui_adapter.access.address_limits import AddressLimits
from webui_adapter.access.principal import Principal
from webui_adapter.access.rate_limits import CommandRateLimiters
from webui_adapter.access.tokens import TokenChecker
from webui_adapter.context import GatewayContext
from webui_adapter.errors import CommandRefused, TokenRefused
from webui_adapter.gateway.connection_limits import ConnectionLimits
from webui_adapter.gateway.deadlines import SessionDeadlines
from webui_adapter.gateway.subscribe import SubscribeHandler
from webui_adapter.protocol.close_codes import CloseCode
from webui_adapter.protocol.commands import Auth, Subscribe
from webui_adapter.session.session import Session

__all__ = ["AccessControl", "Authentication"]

_CODES: Final = {
    "expired": CloseCode.TOKEN_EXPIRED,
    "refused": CloseCode.TOKEN_REFUSED,
    "revoked": CloseCode.REVOKED,
}


@dataclass(frozen=True, slots=True)
class AccessControl:
    """The parts that decide whether the gateway accepts a connection or a command.

    Attributes:
        tokens: checks tokens.
        connection_limits: bounds per instance and per user.
        address_limits: bounds per address.
        rate_limiters: the rates that sessions share.
    """

    tokens: TokenChecker
    connection_limits: ConnectionLimits
    address_limits: AddressLimits
    rate_limiters: CommandRateLimiters


class Authentication:
    """Checks tokens: the first token of a session opens it, a later one extends it.

    Args:
        context: the shared context.
        access: tokens and limits.
        subscribe_handler: subscribes to the session's first topics.
        deadlines: the session's next deadline.
    """

    def __init__(
        self,
        context: GatewayContext,
        access: AccessControl,
        subscribe_handler: SubscribeHandler,
        deadlines: SessionDeadlines,
    ) -> None:
        self._settings = context.settings
        self._instance = context.instance
        self._clock = context.clock
        self._counters = context.counters
        self._degraded = context.degraded
        self._tokens = access.tokens
        self._connection_limits = access.connection_limits
        self._rate_limiters = access.rate_limiters
        self._subscribe_handler = subscribe_handler
        self._deadlines = deadlines

    def authenticate(self, session: Session, token: str, cursor: Cursor, topics: Iterable[str]) -> None:
        """Check the token, then open the session and begin its subscriptions; or close the connection.

        Args:
            session: a session that waits for its token.
            token: the token.
            cursor: where to resume.
            topics: patterns in addition to the default ones.
        """
        principal = self._admitted(session, token)
        if principal is None:
            return
        now = self._clock.now()
        # Sessions that opened at the same time end at different times.
        life = self._settings.max_session_life * random.uniform(0.9, 1)  # noqa: S311 - spreads
        session.open(principal, self._instance, life)
        self._rate_limiters.authenticated(session.rate, principal.user, now)
        session.next_ping = now + random.uniform(0, self._settings.heartbeat_interval)  # noqa: S311 - spreads
        self._deadlines.schedule(session, min(session.next_ping, session.ends))
        degraded = self._degraded()
        if degraded:
            session.send("bus.degraded", {"reason": degraded})
        for pattern in dict.fromkeys((*session.default_topics(), *topics)):
            self._subscribe_handler.subscribe(session, Subscribe(pattern, cursor.get(channel_of(pattern))))

    def _admitted(self, session: Session, token: str) -> Principal | None:
        try:
            principal = self._tokens.check(token)
        except TokenRefused as error:
            self._counters[f"auth.{error.cause}"] += 1
            session.close(_CODES[error.cause], str(error))
            return None
        if self._connection_limits.full:
            self._counters["refused.full"] += 1
            session.close(CloseCode.TOO_MANY_CONNECTIONS, "this instance takes no more connections")
            return None
        too_many, replaced = self._connection_limits.add(session, principal.user)
        if too_many:
            limit = self._settings.max_connections_per_user
            session.close(CloseCode.TOO_MANY_CONNECTIONS, f"this user has {limit} connections, the limit")
            return None
        if replaced is not None:
            replaced.close(CloseCode.REPLACED, "a newer connection of this user took its place")
        return principal

    def refresh(self, session: Session, command: Auth) -> None:
        """Replace the token of an open session by a fresh one of the same user.

        Collections that the user may not read with the fresh token end.

        Args:
            session: an open session.
            command: the command with the token.
        """
        assert session.principal is not None
        try:
            principal = self._tokens.check(command.token)
        except TokenRefused as error:
            self._counters[f"auth.{error.cause}"] += 1
            session.refuse(CommandRefused("unauthenticated", str(error), field="token", ref=command.ref))
            return
        if principal.user != session.principal.user:
            session.refuse(CommandRefused("forbidden", "the token is of another user", field="token", ref=command.ref))
            return
        session.renew(principal)
        self._subscribe_handler.recheck(session)
        # The new token may expire before the old one.
        self._deadlines.schedule(session, self._clock.now())
        session.answer(command.ref, expires=session.expires_ms)
