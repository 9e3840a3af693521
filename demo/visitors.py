"""Authentication of the demo: each browser is an anonymous user."""

from __future__ import annotations

import secrets
import time
from typing import Any, Final

import jwt

__all__ = ["GATEWAY", "TOKEN_SECONDS", "Visitors"]

COOKIE_SECONDS: Final = 7 * 86_400
TOKEN_SECONDS: Final = 15 * 60
GATEWAY: Final = "demo-gateway"
_SITE: Final = "demo-site"


class Visitors:
    """Signs cookies for the site and tokens for the gateway. The claim ``aud`` separates the two."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def new(self) -> str:
        """Return a new user id."""
        return f"visitor-{secrets.token_hex(8)}"

    def cookie(self, user: str) -> str:
        """Return the cookie that identifies the browser at later visits."""
        return self._sign(user, _SITE, COOKIE_SECONDS)

    def token(self, user: str) -> str:
        """Return a token for the gateway. It is short-lived; the page fetches a new one before it expires."""
        return self._sign(user, GATEWAY, TOKEN_SECONDS)

    def user_of_cookie(self, cookie: str | None) -> str | None:
        """Return the user of a cookie, or None if it is missing or of another run of the demo."""
        try:
            claims: dict[str, Any] = jwt.decode(
                cookie or "", self._secret, ["HS256"], audience=_SITE, options={"require": ["exp", "sub"]}
            )
        except jwt.PyJWTError:
            return None
        return str(claims["sub"])

    def _sign(self, user: str, audience: str, seconds: int) -> str:
        claims = {"sub": user, "aud": audience, "exp": int(time.time()) + seconds}
        return jwt.encode(claims, self._secret, "HS256")
