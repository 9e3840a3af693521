"""Authentication: a token, or an application's own function, says who connects. ``WEBUI_AUTHENTICATE`` names it."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol

from starlette.requests import HTTPConnection
from starlette.types import Scope

from eventbus import InvalidName
from eventbus.clock import Clock
from eventbus.protocol.topics import check_user
from webui_adapter.access.principal import Principal
from webui_adapter.access.revocations import Revocations
from webui_adapter.access.tokens import TokenChecker
from webui_adapter.errors import AuthenticationFailed, TokenRefused
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
    """

    token: object = None
    scope: Scope | None = None


class Authenticator:
    """Authenticates connections and requests.

    Args:
        settings: key and required claims of tokens; time limit and number of calls of the application's function.
        revocations: the revoked tokens.
        counters: receives ``auth.failed``.
        clock: the time.
        own: the application's function; None: tokens are JWTs.

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
    ) -> None:
        self._own = own
        self._tokens = TokenChecker(settings) if own is None else None
        self._revocations = revocations
        self._counters = counters
        self._clock = clock
        self._timeout = settings.authenticate_timeout
        self._calls = asyncio.Semaphore(settings.authenticate_calls)

    @property
    def asks_application(self) -> bool:
        """Whether the application decides: it may accept a handshake without a token."""
        return self._own is not None

    def credentials(self, token: object, scope: Callable[[], Scope]) -> Credentials:
        """Return what a request presents.

        Args:
            token: the token; None: none.
            scope: makes the ASGI scope, if the application's function needs it.
        """
        return Credentials(token, scope() if self._own is not None else None)

    def check_now(self, credentials: Credentials) -> Principal | None:
        """Check a token without waiting.

        Args:
            credentials: what the client presents.

        Returns:
            The principal; None: only ``check`` knows.

        Raises:
            TokenRefused: the token is not accepted.
        """
        if self._tokens is None:
            return None
        principal = self._tokens.check(credentials.token)
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
        if self._own is None:
            return self.check_now(credentials)
        found = await self._ask(self._own, credentials)
        if found is None:
            return None
        principal = self._checked(found)
        self.refuse_revoked(principal)
        return principal

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
