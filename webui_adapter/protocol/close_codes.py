"""Close codes. The range of a code says whether a client reconnects (``docs/reference/close-codes.md``)."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["CloseCode"]


class CloseCode(IntEnum):
    """4000-4099: reconnect with the cursor. 4100-4199: reconnect with a fresh token. 4500-4599: do not reconnect."""

    DRAIN = 4000
    TOO_SLOW = 4001
    NO_PONG = 4002
    TOO_MANY_CONNECTIONS = 4003
    AUTHENTICATION_FAILED = 4004
    TOKEN_EXPIRED = 4100
    NO_TOKEN = 4101
    REVOKED = 4102
    SESSION_EXPIRED = 4103
    TOKEN_REFUSED = 4500
    REPLACED = 4501
    PROTOCOL_VIOLATION = 4502
