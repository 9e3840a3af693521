"""Authentication of sessions: the token that opens one, and the fresh token that extends it."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from starlette.types import Scope

from eventbus.protocol.cursor import Cursor
from eventbus.protocol.topics import channel_of
from webui_adapter.access.address_limits import AddressLimits
from webui_adapter.access.authenticator import Authenticator, Credentials
from webui_adapter.access.principal import Principal
from webui_adapter.access.rate_limits import CommandRateLimiters
from webui_adapter.context import GatewayContext
from webui_adapter.errors import AuthenticationFailed, CommandRefused, TokenRefused
from webui_adapter.gateway.connection_limits import ConnectionLimits
from webui_adapter.gateway.deadlines import SessionDeadlines
from webui_adapter.gateway.draining import Drain
from webui_adapter.gateway.subscribe import SubscribeHandler
from webui_adapter.protocol.close_codes import CloseCode
from webui_adapter.protocol.commands import Auth, Subscribe
from webui_adapter.session.session import Session

__all__ = ["AccessControl", "Authentication"]

_RETRY_MS: Final = 1_000
_CODES: Final = {
    "expired": CloseCode.TOKEN_EXPIRED,
    "refused": CloseCode.TOKEN_REFUSED,
    "revoked": CloseCode.REVOKED,
}


@dataclass(frozen=True, slots=True)
class AccessControl:
    """The parts that decide whether the gateway accepts a connection or a command.

    Attributes:
        authenticator: checks tokens, or asks the application.
        connection_limits: bounds per instance and per user.
        address_limits: bounds per address.
        rate_limiters: the rates that sessions share.
    """

    authenticator: Authenticator
    connection_limits: ConnectionLimits
    address_limits: AddressLimits
    rate_limiters: CommandRateLimiters


@dataclass(slots=True)
class _Check:
    """The state of a session whose credentials need more than a look.

    Attributes:
        scope: the ASGI scope of its handshake, for the application's function; None: the application has none.
        running: whether a check is under way.
        queued: the first message, if it came meanwhile.
    """

    scope: Scope | None = None
    running: bool = False
    queued: Auth | None = None


class Authentication:
    """Authenticates sessions: the first credentials of a session open it, later ones extend it.

    Args:
        context: the shared context.
        access: authentication and limits.
        subscribe_handler: subscribes to the session's first topics.
        deadlines: the session's next deadline.
        drain: the orderly shutdown, in which no session opens.
    """

    def __init__(
        self,
        context: GatewayContext,
        access: AccessControl,
        subscribe_handler: SubscribeHandler,
        deadlines: SessionDeadlines,
        drain: Drain,
    ) -> None:
        self._settings = context.settings
        self._instance = context.instance
        self._clock = context.clock
        self._counters = context.counters
        self._degraded = context.degraded
        self._spawn = context.spawn
        self._flush = context.flush
        self._authenticator = access.authenticator
        self._connection_limits = access.connection_limits
        self._rate_limiters = access.rate_limiters
        self._subscribe_handler = subscribe_handler
        self._deadlines = deadlines
        self._drain = drain
        self._checks: dict[str, _Check] = {}

    def begin(self, session: Session, credentials: Credentials, cursor: Cursor, topics: Iterable[str]) -> None:
        """Take what the handshake presents. Without a token the first message may bring one.

        Args:
            session: a new session.
            credentials: what the handshake presents.
            cursor: where to resume.
            topics: patterns in addition to the default ones.
        """
        if credentials.scope is not None:
            self._checks[session.id] = _Check(credentials.scope)
        if credentials.presented or self._authenticator.asks_application:
            self._authenticate(session, credentials, cursor, topics)

    def first_message(self, session: Session, command: Auth) -> None:
        """Take the token of the first message.

        Args:
            session: a session that waits for its token.
            command: the message.
        """
        check = self._checks.get(session.id)
        if check is not None and check.running:
            check.queued = command
            return
        credentials = Credentials(command.token, None if check is None else check.scope)
        self._authenticate(session, credentials, command.cursor, command.topics)

    def forget(self, session: Session) -> None:
        """Forget a session that has ended.

        Args:
            session: the session.
        """
        self._checks.pop(session.id, None)

    def _authenticate(self, session: Session, credentials: Credentials, cursor: Cursor, topics: Iterable[str]) -> None:
        if self._drain.started:
            session.close(CloseCode.DRAIN, "the gateway shuts down")
            return
        try:
            principal = self._authenticator.check_now(credentials)
        except TokenRefused as error:
            self._refuse(session, error)
            return
        if principal is not None:
            self.admit(session, principal, cursor, topics)
            return
        session.opened = self._clock.now()  # the check has its own time limit
        self._checks.setdefault(session.id, _Check()).running = True
        self._spawn(self._check(session, credentials, cursor, tuple(topics)))

    async def _check(self, session: Session, credentials: Credentials, cursor: Cursor, topics: tuple[str, ...]) -> None:
        try:
            principal = await self._authenticator.check(credentials)
            check = self._checks.get(session.id)
            if check is None or session.output.close_code is not None:
                return  # The session has ended.
            check.running = False
            if principal is not None:
                self.admit(session, principal, cursor, topics)
            elif credentials.presented:
                raise TokenRefused("the application does not accept the token")
            if check.queued is not None:
                command, check.queued = check.queued, None
                if principal is None:
                    self.first_message(session, command)
                else:
                    self.refresh(session, command)
        except TokenRefused as error:
            self._refuse(session, error)
        except AuthenticationFailed as error:
            session.close(CloseCode.AUTHENTICATION_FAILED, str(error))
        finally:
            self._flush()

    def admit(
        self,
        session: Session,
        principal: Principal,
        cursor: Cursor,
        topics: Iterable[str],
        credentials: Credentials | None = None,
    ) -> None:
        """Open the session and begin its subscriptions; or close the connection.

        Args:
            session: a session that waits for its token.
            principal: the user.
            cursor: where to resume.
            topics: patterns in addition to the default ones.
            credentials: what a request presented, for fresh tokens; None: ``begin`` has seen it.
        """
        if credentials is not None and credentials.scope is not None:
            self._checks[session.id] = _Check(credentials.scope)
        if not self._is_admitted(session, principal):
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

    def _is_admitted(self, session: Session, principal: Principal) -> bool:
        if self._drain.started:
            session.close(CloseCode.DRAIN, "the gateway shuts down")
            return False
        try:
            # The check may have taken a while. From now on the session is among those that a revocation ends.
            self._authenticator.refuse_revoked(principal)
        except TokenRefused as error:
            self._refuse(session, error)
            return False
        if self._connection_limits.full:
            self._counters["refused.full"] += 1
            session.close(CloseCode.TOO_MANY_CONNECTIONS, "this instance takes no more connections")
            return False
        too_many, replaced = self._connection_limits.add(session, principal.user)
        if too_many:
            limit = self._settings.max_connections_per_user
            session.close(CloseCode.TOO_MANY_CONNECTIONS, f"this user has {limit} connections, the limit")
            return False
        if replaced is not None:
            replaced.close(CloseCode.REPLACED, "a newer connection of this user took its place")
        return True

    def _refuse(self, session: Session, error: TokenRefused) -> None:
        self._counters[f"auth.{error.cause}"] += 1
        session.close(_CODES[error.cause], str(error))

    # --- fresh tokens ----------------------------------------------------------------------------------------

    def refresh(self, session: Session, command: Auth) -> None:
        """Replace the token of an open session by a fresh one of the same user.

        Collections that the user may not read with the fresh token end.

        Args:
            session: an open session.
            command: the command with the token.
        """
        check = self._checks.get(session.id)
        credentials = Credentials(command.token, None if check is None else check.scope)
        try:
            principal = self._authenticator.check_now(credentials)
            if principal is not None:
                self._renew(session, command, principal)
            elif check is not None and check.running:
                message = "another token of this session is being checked"
                self._refuse_refresh(session, command, CommandRefused("unavailable", message, retry_ms=_RETRY_MS))
            else:
                self._checks.setdefault(session.id, _Check()).running = True
                self._spawn(self._refresh_later(session, command, credentials))
        except (CommandRefused, TokenRefused) as error:
            self._refuse_refresh(session, command, error)

    async def _refresh_later(self, session: Session, command: Auth, credentials: Credentials) -> None:
        refusal: CommandRefused | TokenRefused | None = None
        principal: Principal | None = None
        try:
            principal = await self._authenticator.check(credentials)
        except TokenRefused as error:
            refusal = error
        except AuthenticationFailed as error:
            refusal = CommandRefused("unavailable", str(error), retry_ms=_RETRY_MS)
        check = self._checks.get(session.id)
        if check is None:
            return  # The session has ended.
        check.running = False
        try:
            if principal is None:
                raise refusal or TokenRefused("the application does not accept the token")
            self._renew(session, command, principal)
        except (CommandRefused, TokenRefused) as error:
            self._refuse_refresh(session, command, error)
        self._flush()

    def _renew(self, session: Session, command: Auth, principal: Principal) -> None:
        assert session.principal is not None
        if principal.user != session.principal.user:
            raise CommandRefused("forbidden", "the token is of another user", field="token")
        session.renew(principal)
        self._subscribe_handler.recheck(session)
        # The new token may expire before the old one.
        self._deadlines.schedule(session, self._clock.now())
        session.answer(command.ref, expires=session.expires_ms)

    def _refuse_refresh(self, session: Session, command: Auth, error: CommandRefused | TokenRefused) -> None:
        if isinstance(error, TokenRefused):
            self._counters[f"auth.{error.cause}"] += 1
            error = CommandRefused("unauthenticated", str(error), field="token")
        error.ref = command.ref
        session.refuse(error)
