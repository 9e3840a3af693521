"""Who is who in the demo: every browser gets a user of its own, without asking for a name."""

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
    """Signs a cookie for the site and tokens for the gateway. ``aud`` keeps one from being taken for the other."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def new(self) -> str:
        """A user that nobody was before."""
        return f"visitor-{secrets.token_hex(8)}"

    def cookie(self, user: str) -> str:
        """What a browser keeps, to be the same visitor tomorrow."""
        return self._sign(user, _SITE, COOKIE_SECONDS)

    def token(self, user: str) -> str:
        """What opens the gateway. Short-lived: the page asks for another in time."""
        return self._sign(user, GATEWAY, TOKEN_SECONDS)

    def user_of_cookie(self, cookie: str | None) -> str | None:
        """The user of a cookie; None without one, or with one of another run of the demo."""
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
