"""Tickets: what Redis keeps of the principal whom a ticket stands for. No I/O."""

from __future__ import annotations

import hashlib
import json
import math

from webui_adapter.access.principal import Principal

__all__ = ["digest", "read_principal", "write_principal"]


def digest(ticket: str) -> str:
    """Return what Redis keeps of a ticket: who reads Redis cannot use it.

    Args:
        ticket: the ticket.
    """
    return hashlib.sha256(ticket.encode(errors="replace")).hexdigest()


def write_principal(principal: Principal) -> bytes:
    """Write a principal as JSON.

    Args:
        principal: the principal. A claim that JSON cannot express becomes its text.

    Returns:
        The JSON.
    """
    facts = {
        "user": principal.user,
        "expires": None if math.isinf(principal.expires) else principal.expires,
        "collections": sorted(principal.collections),
        "claims": dict(principal.claims),
        "scopes": sorted(principal.scopes),
        "issued": principal.issued,
        "token_id": principal.token_id,
    }
    return json.dumps(facts, default=str).encode()


def read_principal(text: bytes) -> Principal:
    """Read what ``write_principal`` has written.

    Args:
        text: the JSON.

    Returns:
        The principal.
    """
    facts = json.loads(text)
    return Principal(
        facts["user"],
        math.inf if facts["expires"] is None else facts["expires"],
        frozenset(facts["collections"]),
        facts["claims"],
        frozenset(facts["scopes"]),
        facts["issued"],
        facts["token_id"],
    )
