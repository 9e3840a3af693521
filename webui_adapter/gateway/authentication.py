"""Tokens of connected pages: the one that opens a session, and the fresh one that lets it go on."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable

from eventbus.clock import Clock
from eventbus.protocol.cursor import Cursor
from eventbus.protocol.topics import channel_of
from webui_adapter.access.rate_limits import CommandRateLimiters
from webui_adapter.access.tokens import Principal, TokenChecker
from webui_adapter.errors import CommandRefused, TokenRefused
from webui_adapter.gateway.connection_limits import ConnectionLimits
from webui_adapter.gateway.deadlines import SessionDeadlines
from webui_adapter.gateway.subscribe import SubscribeHandler
from webui_adapter.health.redis_monitor import RedisMonitor
from webui_adapter.protocol.close_codes import CloseCode
from webui_adapter.protocol.commands import Auth, Subscribe
from webui_adapter.session.session import Session
from webui_adapter.settings import GatewaySettings

__all__ = ["Authentication"]


class Authentication:
    """Works for one gateway, which is called ``instance``."""

    def __init__(
        self,
        settings: GatewaySettings,
        instance: str,
        tokens: TokenChecker,
        connection_limits: ConnectionLimits,
        rate_limiters: CommandRateLimiters,
        subscribe_handler: SubscribeHandler,
        redis_monitor: RedisMonitor,
        deadlines: SessionDeadlines,
        clock: Clock,
        counters: Counter[str],
    ) -> None:
        self._settings = settings
        self._instance = instance
        self._tokens = tokens
        self._connection_limits = connection_limits
        self._rate_limiters = rate_limiters
        self._subscribe_handler = subscribe_handler
        self._redis_monitor = redis_monitor
        self._deadlines = deadlines
        self._clock = clock
        self._counters = counters

    def authenticate(self, session: Session, token: str, cursor: Cursor, topics: Iterable[str]) -> None:
        """Check the token; open the session and begin what it reads, or ask for the connection's end."""
        principal = self._admitted(session, token)
        if principal is None:
            return
        now = self._clock.now()
        session.open(principal, self._instance)
        self._rate_limiters.authenticated(session.rate, principal.user, now)
        session.next_ping = now + random.uniform(0, self._settings.heartbeat_interval)  # noqa: S311 - spreads
        self._deadlines.schedule(session, min(session.next_ping, session.expires))
        if self._redis_monitor.health.most_severe:
            session.send("bus.degraded", {"reason": self._redis_monitor.health.most_severe})
        for pattern in dict.fromkeys((*session.default_topics(), *topics)):
            self._subscribe_handler.subscribe(session, Subscribe(pattern, cursor.get(channel_of(pattern))))

    def _admitted(self, session: Session, token: str) -> Principal | None:
        try:
            principal = self._tokens.check(token)
        except TokenRefused as error:
            self._counters["auth.expired" if error.expired else "auth.refused"] += 1
            session.close(CloseCode.TOKEN_EXPIRED if error.expired else CloseCode.TOKEN_REFUSED, str(error))
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
        """A fresh token, in place: of the same user only."""
        assert session.principal is not None
        try:
            principal = self._tokens.check(command.token)
        except TokenRefused as error:
            self._counters["auth.refused"] += 1
            session.refuse(CommandRefused("unauthenticated", str(error), field="token", ref=command.ref))
            return
        if principal.user != session.principal.user:
            session.refuse(CommandRefused("forbidden", "the token is of another user", field="token", ref=command.ref))
            return
        session.renew(principal)
        # The new end may be earlier than the moment that the old one was to be looked at.
        self._deadlines.schedule(session, self._clock.now())
        session.answer(command.ref, expires=int(principal.expires * 1000))
