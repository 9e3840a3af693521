"""Tokens that a gateway under test accepts."""

from __future__ import annotations

import time
from collections.abc import Mapping

import jwt

__all__ = ["make_token"]


def make_token(
    user: str, key: str, *, seconds: float = 600, algorithm: str = "HS256", claims: Mapping[str, object] | None = None
) -> str:
    """A token of ``user`` that lives for ``seconds``; ``claims`` go in beside, ``{"collections": ["7"]}`` perhaps."""
    return jwt.encode({"sub": user, "exp": int(time.time() + seconds), **(claims or {})}, key, algorithm)
