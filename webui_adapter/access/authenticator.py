"""Authentication: a token, or an application's own function, says who connects. ``WEBUI_AUTHENTICATE`` names it."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol

from starlette.requests import HTTPConnection
from starlette.types import Scope

from eventbus import InvalidName
from eventbus.backends.tickets import TicketStore
from eventbus.clock import Clock
from eventbus.errors import TransportError
from eventbus.protocol.topics import check_user
from webui_adapter.access.credentials.key_set import KeySet
from webui_adapter.access.credentials.tickets import digest, read_principal, write_principal
from webui_adapter.access.principal import Principal
from webui_adapter.access.revocations import Revocations
from webui_adapter.access.tokens import Presented, TokenChecker
from webui_adapter.errors import AuthenticationFailed, CommandRefused, TokenRefused, UnknownKey
from webui_adapter.settings import GatewaySettings

__all__ = ["Authenticate", "Authenticator", "Connection", "Credentials"]

log = logging.getLogger(__name__)


class Connection(HTTPConnection):
    """A request, or a WebSocket after its handshake, that has to be authenticated.

    Headers, cookies, query parameters and the client's address are those of Starlette's ``HTTPConnection``. A mounted
    gateway also has what middleware added to the scope, such as ``session``.

    Args:
        scope: the ASGI scope.
        token: see below.

    Attributes:
        token: the token that the client sent in a header, a subprotocol, the first message or the cookie
            ``WEBUI_COOKIE_NAME``; None: none.
    """

    def __init__(self, scope: Scope, token: str | None) -> None:
        super().__init__(scope)
        self.token = token


class Authenticate(Protocol):
    """Says who connects. An exception counts as a failure of the application, not of the client."""

    def __call__(self, connection: Connection, /) -> Awaitable[Principal | None]:
        """Authenticate one request or WebSocket.

        Args:
            connection: what the client sent.

        Returns:
            The principal; None: the client has not shown who it is.
        """
        ...


@dataclass(frozen=True, slots=True)
class Credentials:
    """The credentials that a client presents.

    Attributes:
        token: a token of any type, since the client chose it; None: none.
        scope: the ASGI scope for the application's function; None: the application has none.
        ticket: a ticket, which counts more than a token; None: none.
    """

    token: object = None
    scope: Scope | None = None
    ticket: str | None = None

    @property
    def presented(self) -> bool:
        """Whether the client presents a token or a ticket."""
        return self.token is not None or self.ticket is not None


class Authenticator:
    """Authenticates connections and requests.

    Args:
        settings: key and required claims of tokens; time limit and number of calls of the application's function.
        revocations: the revoked tokens.
        counters: receives ``auth.failed``.
        clock: the time.
        own: the application's function; None: tokens are JWTs.
        tickets: keeps tickets; None: there are none.

    Raises:
        NotConfigured: the key of the tokens cannot be used.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        revocations: Revocations,
        counters: Counter[str],
        clock: Clock,
        own: Authenticate | None = None,
        tickets: TicketStore | None = None,
    ) -> None:
        self._own = own
        self._keys: KeySet | None = None
        if own is None and settings.jwt_jwks:
            self._keys = KeySet(settings.jwt_jwks, settings, counters, clock)
        self._tokens = TokenChecker(settings, self._keys) if own is None else None
        self._tickets = tickets
        self._revocations = revocations
        self._counters = counters
        self._clock = clock
        self._timeout = settings.authenticate_timeout
        self._calls = asyncio.Semaphore(settings.authenticate_calls)

    @property
    def asks_application(self) -> bool:
        """Whether the application decides: it may accept a handshake without a token."""
        return self._own is not None

    def credentials(self, presented: Presented | None, scope: Callable[[], Scope]) -> Credentials:
        """Return what a request presents.

        Args:
            presented: the token or ticket; None: none.
            scope: makes the ASGI scope, if the application's function needs it.
        """
        own = scope() if self._own is not None else None
        if presented is not None and presented.carrier == "ticket":
            return Credentials(None, own, presented.token)
        return Credentials(None if presented is None else presented.token, own)

    def check_now(self, credentials: Credentials) -> Principal | None:
        """Check a token without waiting.

        Args:
            credentials: what the client presents.

        Returns:
            The principal; None: only ``check`` knows.

        Raises:
            TokenRefused: the token is not accepted.
        """
        if self._tokens is None or credentials.ticket is not None:
            return None
        try:
            principal = self._tokens.check(credentials.token)
        except UnknownKey:
            return None
        self.refuse_revoked(principal)
        return principal

    async def check(self, credentials: Credentials) -> Principal | None:
        """Check what the client presents, with all that it needs.

        Args:
            credentials: what the client presents.

        Returns:
            The principal; None: the application does not know who it is.

        Raises:
            TokenRefused: the credentials are not accepted.
            AuthenticationFailed: the application's function failed.
        """
        principal = self.check_now(credentials)
        if principal is not None:
            return principal
        if credentials.ticket is not None:
            return await self._redeem(credentials.ticket)
        if self._own is None:
            return await self._check_token(credentials.token)
        found = await self._ask(self._own, credentials)
        if found is None:
            return None
        principal = self._checked(found)
        self.refuse_revoked(principal)
        return principal

    async def _check_token(self, token: object) -> Principal:
        """Check a token whose key was not known."""
        assert self._tokens is not None
        if self._keys is not None:
            await self._keys.refresh()
            if self._keys.is_empty:
                self._counters["auth.failed"] += 1
                raise AuthenticationFailed("the gateway has no key to check tokens yet (WEBUI_JWT_JWKS)")
        principal = self._tokens.check(token)
        self.refuse_revoked(principal)
        return principal

    async def issue_ticket(self, principal: Principal, seconds: float, limit: int) -> str:
        """Make a ticket, which opens one connection as this principal.

        Args:
            principal: the user.
            seconds: how long it is valid.
            limit: the largest number of the user's tickets in that time.

        Returns:
            The ticket.

        Raises:
            CommandRefused: ``rate_limited``: the user has too many; ``unavailable``: there are no tickets here.
            Unavailable, Refused: Redis does not keep it.
        """
        if self._tickets is None:
            raise CommandRefused("unavailable", "this gateway issues no tickets")
        ticket = secrets.token_urlsafe(24)
        kept = await self._tickets.keep(digest(ticket), principal.user, write_principal(principal), seconds, limit)
        if not kept:
            message = f"a user has at most {limit} tickets in {seconds:g} s"
            raise CommandRefused("rate_limited", message, limit=limit, scope="user", retry_ms=int(seconds * 1000))
        return ticket

    async def _redeem(self, ticket: str) -> Principal:
        if self._tickets is None:
            raise TokenRefused("this gateway issues no tickets")
        try:
            kept = await self._tickets.take(digest(ticket))
        except TransportError as error:
            self._counters["auth.failed"] += 1
            raise AuthenticationFailed(f"cannot check the ticket now: {error}") from error
        if kept is None:
            raise TokenRefused("the ticket was used, has expired, or never existed", expired=True)
        principal = read_principal(kept)
        if principal.expires <= self._clock.wall():
            raise TokenRefused("the token has expired", expired=True)
        self.refuse_revoked(principal)
        return principal

    @property
    def not_ready(self) -> str | None:
        """The reason why no token can be checked yet, or None."""
        return "the keys of tokens are not read yet" if self._keys is not None and self._keys.is_empty else None

    async def run(self) -> None:
        """Read keys as long as the gateway lives, if there is a key set."""
        if self._keys is not None:
            await self._keys.run()

    def refuse_revoked(self, principal: Principal) -> None:
        """Check that a principal's token was not revoked.

        Args:
            principal: the principal.

        Raises:
            TokenRefused: it was.
        """
        if self._revocations.find(principal, self._clock.wall() * 1000) is not None:
            raise TokenRefused("the token was revoked; use a fresh one", revoked=True)

    async def _ask(self, own: Authenticate, credentials: Credentials) -> Principal | None:
        token = credentials.token if isinstance(credentials.token, str) else None
        assert credentials.scope is not None
        try:
            async with asyncio.timeout(self._timeout), self._calls:
                found: object = await own(Connection(credentials.scope, token))
            if found is None or isinstance(found, Principal):
                return found
            log.error("cannot authenticate: the application's function returned %s, not a Principal", type(found))
        except TimeoutError:
            log.warning("cannot authenticate: the application's function took more than %g s", self._timeout)
        except Exception:
            # It is code of the application, and may raise anything.
            log.exception("cannot authenticate: the application's function failed")
        self._counters["auth.failed"] += 1
        raise AuthenticationFailed("the application could not check who connects; try again later")

    def _checked(self, found: Principal) -> Principal:
        """Return the principal in the form of this library."""
        try:
            user = check_user(found.user)
        except InvalidName as error:
            raise TokenRefused(f"the application's principal cannot be used: {error}") from None
        now = self._clock.wall()
        if math.isnan(found.expires) or found.expires <= now:
            raise TokenRefused("the token has expired", expired=True)
        # The application has decided just now. So it knew all that happened before.
        return replace(found, user=user, issued=now if found.issued is None else found.issued)
