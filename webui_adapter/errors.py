"""What the gateway refuses, as one tree under ``EventBusError``.

EventBusError
└── GatewayError
├── TokenRefused      missing, malformed, forged, expired
├── CommandRefused    a command of a page; becomes ``bus.error``
├── HandshakeRefused  a connection that is not begun; becomes an HTTP answer
├── NotConfigured     a setting that does not work
└── NotReady          a gateway that a test started, and that does not serve
"""

from __future__ import annotations

from collections.abc import Mapping

from eventbus import EventBusError

__all__ = ["CommandRefused", "GatewayError", "HandshakeRefused", "NotConfigured", "NotReady", "TokenRefused"]


class GatewayError(EventBusError):
    """Whatever the gateway raises of its own."""


class TokenRefused(GatewayError):
    """The token does not open this door. ``expired`` is True if a fresh one of the same kind would."""

    def __init__(self, message: str, *, expired: bool = False) -> None:
        super().__init__(message)
        self.expired = expired


class CommandRefused(GatewayError):
    """A command is answered with ``bus.error``. The attributes are the members of its data."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        field: str | None = None,
        topic: str | None = None,
        limit: float | None = None,
        scope: str | None = None,
        retry_ms: int | None = None,
        ref: str | float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.field = field
        self.topic = topic
        self.limit = limit
        self.scope = scope
        self.retry_ms = retry_ms
        self.ref = ref

    def data(self) -> dict[str, object]:
        """Members of ``bus.error``'s data."""
        facts = {
            "code": self.code,
            "message": str(self),
            "field": self.field,
            "topic": self.topic,
            "limit": self.limit,
            "scope": self.scope,
            "retry_ms": self.retry_ms,
            "ref": self.ref,
        }
        return {name: value for name, value in facts.items() if value is not None}


class HandshakeRefused(GatewayError):
    """A WebSocket is not opened. ``status`` and ``headers`` are those of the answer, the message is its body."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}


class NotConfigured(GatewayError):
    """A setting names something that is not there or does not work."""


class NotReady(GatewayError):
    """A gateway that was started for tests does not serve. ``log`` is the end of what it said."""

    def __init__(self, message: str, *, log: str) -> None:
        super().__init__(f"{message}; the end of its log:\n{log}")
        self.log = log
