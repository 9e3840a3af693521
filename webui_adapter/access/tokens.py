"""Who is there: JWTs checked, and where a request may carry one. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, cast

import jwt

from eventbus import InvalidName
from eventbus.protocol.topics import check_id
from webui_adapter.errors import NotConfigured, TokenRefused
from webui_adapter.settings import GatewaySettings

__all__ = ["SUBPROTOCOL", "TOKEN_SUBPROTOCOL", "Principal", "TokenChecker", "token_of"]

SUBPROTOCOL: Final = "eventbus.v1"
TOKEN_SUBPROTOCOL: Final = "access_token."  # noqa: S105 - the name of a carrier, not a secret
MAX_TOKEN: Final = 8192
# Seconds since 1970, which a page has to be told in milliseconds, as a number that is exact in JavaScript.
_LAST_MOMENT: Final = 2**53 // 1000


@dataclass(frozen=True, slots=True)
class Principal:
    """A user and what the token says of them.

    Attributes:
        user: the id that names their channel.
        expires: seconds since 1970; the session ends then unless a fresh token comes.
        collections: ids in the claim ``collections``, for ``authorise.by_claim``.
        claims: everything, for an application's own authoriser.
    """

    user: str
    expires: float
    collections: frozenset[str]
    claims: Mapping[str, object]


class TokenChecker:
    """Checks signature, ``exp`` (required), and issuer and audience where they are set.

    The algorithm is the setting's, never the token's; keys come from the settings, never from the token.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        """Read the key. Raises OSError, or NotConfigured where it does not fit the algorithm."""
        self._settings = settings
        # Read once: a PEM costs a fifth of the whole check, and a wrong one should not be found by the first visitor.
        try:
            self._key = jwt.get_algorithm_by_name(settings.jwt_algorithm).prepare_key(settings.jwt_key)
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            name = "WEBUI_JWT_KEY_FILE" if settings.jwt_key_file else "WEBUI_JWT_SECRET"
            raise NotConfigured(f"{name} is no key for {settings.jwt_algorithm}: {error}") from error
        self._required = ["exp", settings.jwt_user_claim]

    def check(self, token: object) -> Principal:
        """The principal of a token.

        Raises:
            TokenRefused: with a reason that holds nothing of the token.
        """
        if not isinstance(token, str) or not token or len(token) > MAX_TOKEN:
            raise TokenRefused(f"the token must be a string of at most {MAX_TOKEN} characters")
        settings = self._settings
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[settings.jwt_algorithm],
                issuer=settings.jwt_issuer,
                audience=settings.jwt_audience,
                leeway=timedelta(seconds=settings.jwt_leeway),
                options={"require": self._required, "verify_aud": settings.jwt_audience is not None},
            )
        except jwt.ExpiredSignatureError:
            raise TokenRefused("the token has expired", expired=True) from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as error:
            # Not all that a signed but odd claim can do to PyJWT comes as an error of its own.
            raise TokenRefused(f"the token is not valid: {type(error).__name__}") from None
        return self._principal(claims)

    def is_admin(self, principal: Principal) -> bool:
        """Whether the token has the admin scope: in a list, or in a text with spaces between."""
        scopes = principal.claims.get(self._settings.admin_claim)
        listed = scopes.split() if isinstance(scopes, str) else scopes
        return isinstance(listed, list) and self._settings.admin_scope in listed

    def _principal(self, claims: Mapping[str, object]) -> Principal:
        claim = self._settings.jwt_user_claim
        try:
            user = check_id(claims[claim], claim)
        except InvalidName as error:
            raise TokenRefused(f"the token's {claim} cannot be a user id: {error}") from None
        # PyJWT has checked that it is a number, which may come as text.
        expires = int(cast("int", claims["exp"]))
        if expires > _LAST_MOMENT:
            raise TokenRefused(f"the token's exp is no moment that can be told: at most {_LAST_MOMENT} seconds")
        listed = claims.get("collections")
        collections = frozenset(str(item) for item in listed) if isinstance(listed, list) else frozenset[str]()
        return Principal(user, float(expires), collections, claims)


@dataclass(frozen=True, slots=True)
class Presented:
    """A token and what carried it: ``subprotocol``, ``header`` or ``cookie``."""

    token: str
    carrier: str


def token_of(
    headers: Mapping[str, str], subprotocols: Iterable[str], cookies: Mapping[str, str], cookie: str
) -> Presented | None:
    """The token that a request carries. The query string is not a carrier: it ends up in logs."""
    for offered in subprotocols:
        if offered.startswith(TOKEN_SUBPROTOCOL):
            return Presented(offered[len(TOKEN_SUBPROTOCOL) :], "subprotocol")
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credentials:
        return Presented(credentials.strip(), "header")
    if cookie and cookies.get(cookie):
        return Presented(cookies[cookie], "cookie")
    return None
