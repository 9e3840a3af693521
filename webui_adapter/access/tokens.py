"""Tokens: JWTs, their check, and the places where a request may carry one. No I/O."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, cast
from urllib.parse import parse_qsl

import jwt

from eventbus import InvalidName
from eventbus.protocol.topics import check_user
from webui_adapter.access.credentials.key_set import KeySet
from webui_adapter.access.credentials.keys import prepare_key
from webui_adapter.access.principal import Principal
from webui_adapter.errors import TokenRefused, UnknownKey
from webui_adapter.settings import GatewaySettings

__all__ = ["SUBPROTOCOL", "TOKEN_SUBPROTOCOL", "Presented", "TokenChecker", "token_of"]

SUBPROTOCOL: Final = "eventbus.v1"
TOKEN_SUBPROTOCOL: Final = "access_token."  # noqa: S105 - the name of a carrier, not a secret
MAX_TOKEN: Final = 8192
# Seconds since 1970. Pages receive milliseconds, and JavaScript is exact up to 2**53.
_LAST_MOMENT: Final = 2**53 // 1000


class TokenChecker:
    """Checks the signature and ``exp`` (required), and issuer and audience if they are set.

    The algorithm and the key come from the settings, never from the token.
    """

    def __init__(self, settings: GatewaySettings, keys: KeySet | None = None) -> None:
        """Read the key.

        Args:
            settings: algorithm, key, and required claims.
            keys: the keys by their ids; None: the settings have one key.

        Raises:
            NotConfigured: the key cannot be read, or does not fit the algorithm.
        """
        self._settings = settings
        self._keys = keys
        # Prepared once: reading a PEM costs a fifth of a check, and a wrong key must fail at the start.
        self._key = prepare_key(settings) if keys is None else None
        self._required = ["exp", settings.jwt_user_claim]

    def check(self, token: object) -> Principal:
        """Check a token.

        Args:
            token: what the client sent, of any type.

        Returns:
            The user and the claims.

        Raises:
            TokenRefused: the reason holds no part of the token. ``UnknownKey``: its key is not known.
        """
        if not isinstance(token, str) or not token or len(token) > MAX_TOKEN:
            raise TokenRefused(f"the token must be a string of at most {MAX_TOKEN} characters")
        settings = self._settings
        try:
            decoded = jwt.decode_complete(
                token,
                self._key_of(token),
                algorithms=[settings.jwt_algorithm],
                issuer=settings.jwt_issuer,
                audience=settings.jwt_audience,
                leeway=timedelta(seconds=settings.jwt_leeway),
                # PyJWT refuses a sub that is an integer. Here it counts as its text.
                options={
                    "require": self._required,
                    "verify_aud": settings.jwt_audience is not None,
                    "verify_sub": False,
                    # See _check_begin.
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except jwt.ExpiredSignatureError:
            raise TokenRefused("the token has expired", expired=True) from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as error:
            # An odd but signed claim can make PyJWT raise an ordinary Python error.
            raise TokenRefused(f"the token is not valid: {type(error).__name__}") from None
        claims: Mapping[str, object] = decoded["payload"]
        self._check_begin(claims)
        self._check_purpose(decoded["header"], claims)
        return self._principal(claims)

    def _key_of(self, token: str) -> Any:
        """Return the key that a token names. Its header is not yet checked, and only chooses among known keys."""
        if self._keys is None:
            return self._key
        key = self._keys.find(jwt.get_unverified_header(token).get("kid"))
        if key is None:
            # As for an expired token, the client asks for another one: the key may be known by then.
            raise UnknownKey("the token's key is not in the set of WEBUI_JWT_JWKS", expired=True)
        return key

    def _check_purpose(self, header: Mapping[str, object], claims: Mapping[str, object]) -> None:
        """Refuse a token of the same issuer and key that was made for something else."""
        required = self._settings.jwt_type
        # RFC 7515, section 4.1.9: a media type without its first part, of any case.
        found = str(header.get("typ", "")).lower().removeprefix("application/")
        if required is not None and found != required.lower().removeprefix("application/"):
            raise TokenRefused("the token's header typ is not the one of WEBUI_JWT_TYPE")
        for name, value in self._settings.jwt_claims.items():
            if claims.get(name) != value:
                raise TokenRefused(f"the token's {name} is not the one of WEBUI_JWT_CLAIMS")

    def _check_begin(self, claims: Mapping[str, object]) -> None:
        """Refuse a token whose time has not come. PyJWT has one tolerance for this and for the end."""
        latest = time.time() + self._settings.jwt_begin_leeway
        for name in ("iat", "nbf"):
            begin = claims.get(name, 0)
            if not isinstance(begin, int | float) or not math.isfinite(begin):
                raise TokenRefused(f"the token's {name} is not a number")
            if begin > latest:
                # As for an expired token, the client asks for another one: time alone heals both.
                raise TokenRefused(
                    f"the token's {name} has not come: the clocks of issuer and gateway differ by more than "
                    "WEBUI_JWT_BEGIN_LEEWAY",
                    expired=True,
                )

    def _principal(self, claims: Mapping[str, object]) -> Principal:
        claim = self._settings.jwt_user_claim
        try:
            user = check_user(claims[claim], claim)
        except InvalidName as error:
            raise TokenRefused(f"the token's {claim} cannot be a user id: {error}") from None
        # PyJWT has checked that it is a number; it may be a text.
        expires = int(cast("int", claims["exp"]))
        if expires > _LAST_MOMENT:
            raise TokenRefused(f"the token's exp is too large: at most {_LAST_MOMENT} seconds since 1970")
        listed, scopes, token_id = claims.get("collections"), claims.get(self._settings.admin_claim), claims.get("jti")
        return Principal(
            user,
            float(expires),
            frozenset(str(item) for item in listed) if isinstance(listed, list) else frozenset(),
            claims,
            _scopes(scopes),
            # _check_begin has checked that it is a number.
            float(cast("float", claims.get("iat", 0))),
            token_id if isinstance(token_id, str) else None,
        )


def _scopes(claim: object) -> frozenset[str]:
    """Return the scopes of a claim: a list, or a text separated by spaces."""
    listed = claim.split() if isinstance(claim, str) else claim
    return frozenset(scope for scope in listed if isinstance(scope, str)) if isinstance(listed, list) else frozenset()


@dataclass(frozen=True, slots=True)
class Presented:
    """A token and its carrier.

    Attributes:
        token: the token.
        carrier: ``ticket``, ``subprotocol``, ``header`` or ``cookie``.
    """

    token: str
    carrier: str


def token_of(
    headers: Mapping[str, str], subprotocols: Iterable[str], cookies: Mapping[str, str], cookie: str, query: str = ""
) -> Presented | None:
    """Find the token of a request. The query string can carry a ticket, but no token, because servers log it.

    Args:
        headers: the request's headers, names in lower case.
        subprotocols: the subprotocols that the client offers.
        cookies: the request's cookies.
        cookie: the name of the cookie that may carry a token; empty: none.
        query: the query string, if it may carry a ticket.

    Returns:
        The token or ticket and its carrier, or None.
    """
    if "ticket=" in query:
        ticket = dict(parse_qsl(query)).get("ticket")
        if ticket:
            return Presented(ticket, "ticket")
    for offered in subprotocols:
        if offered.startswith(TOKEN_SUBPROTOCOL):
            return Presented(offered[len(TOKEN_SUBPROTOCOL) :], "subprotocol")
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credentials:
        return Presented(credentials.strip(), "header")
    if cookie and cookies.get(cookie):
        return Presented(cookies[cookie], "cookie")
    return None
