"""The principal: who has connected, and what they may do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Principal"]


@dataclass(frozen=True, slots=True)
class Principal:
    """A user, and what is known about the user.

    Attributes:
        user: the id that names the user's channel.
        expires: seconds since 1970; the session ends then unless the client sends a fresh token.
        collections: ids of the collections that the user may read, for ``by_claim``.
        claims: all claims of the token, or other facts, for an application's authoriser.
        scopes: what the user may do; ``WEBUI_ADMIN_SCOPE`` makes an admin.
        issued: when the token was issued, in seconds since 1970; None: not known.
        token_id: the token's own id, by which it can be revoked; None: it has none.
    """

    user: str
    expires: float = math.inf
    collections: frozenset[str] = frozenset()
    claims: Mapping[str, object] = field(default_factory=dict)
    scopes: frozenset[str] = frozenset()
    issued: float | None = None
    token_id: str | None = None
