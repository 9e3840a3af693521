"""Tokens that a gateway under test accepts."""

from __future__ import annotations

import time
from collections.abc import Mapping

import jwt

__all__ = ["make_token"]


def make_token(
    user: str, key: str, *, seconds: float = 600, algorithm: str = "HS256", claims: Mapping[str, object] | None = None
) -> str:
    """Sign a token.

    Args:
        user: the user's id.
        key: the key; ``GatewayProcess.secret``.
        seconds: the token expires after this.
        algorithm: the signature's algorithm.
        claims: additional claims, for example ``{"collections": ["7"]}``.

    Returns:
        The token.
    """
    return jwt.encode({"sub": user, "exp": int(time.time() + seconds), **(claims or {})}, key, algorithm)
