"""The gateway's errors, as one tree under ``EventBusError``.

EventBusError
└── GatewayError
    ├── TokenRefused    a missing, malformed, forged, expired or revoked token
    │   └── UnknownKey  the token names a key that is not known
    ├── AuthenticationFailed  the application could not say who connects
    ├── CommandRefused  a command that becomes ``bus.error``, or an answer over HTTP
    ├── RequestRefused  a handshake or request that becomes an answer over HTTP
    ├── NotConfigured   a setting that does not work
    └── NotReady        a gateway under test that does not serve
"""

from __future__ import annotations

from collections.abc import Mapping

from eventbus import EventBusError

__all__ = [
    "AuthenticationFailed",
    "CommandRefused",
    "GatewayError",
    "NotConfigured",
    "NotReady",
    "RequestRefused",
    "TokenRefused",
    "UnknownKey",
]


class GatewayError(EventBusError):
    """The root of all errors of the gateway."""


class TokenRefused(GatewayError):
    """The token is not accepted.

    Args:
        message: the reason, without any part of the token.
        expired: whether a fresh token of the same kind would be accepted.
        revoked: whether an operator or the application has revoked it.
    """

    def __init__(self, message: str, *, expired: bool = False, revoked: bool = False) -> None:
        super().__init__(message)
        self.expired = expired
        self.revoked = revoked

    @property
    def cause(self) -> str:
        """The cause as metrics name it: ``revoked``, ``expired`` or ``refused``."""
        return "revoked" if self.revoked else "expired" if self.expired else "refused"


class UnknownKey(TokenRefused):
    """The token names a key that is not in the key set, at least not yet."""


class AuthenticationFailed(GatewayError):
    """The application's function failed, or took too long. The client may try again."""


class CommandRefused(GatewayError):
    """A command is not carried out. The attributes are the members of the data of ``bus.error``."""

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
        """Create the error.

        Args:
            code: the kind of refusal, for programs.
            message: the reason, for people.
            field: the member of the command that is wrong.
            topic: the topic that is refused.
            limit: the bound that is exceeded.
            scope: what the bound is about: ``session``, ``user`` or ``instance``.
            retry_ms: milliseconds after which the client may try again.
            ref: the command's own reference.
        """
        super().__init__(message)
        self.code = code
        self.field = field
        self.topic = topic
        self.limit = limit
        self.scope = scope
        self.retry_ms = retry_ms
        self.ref = ref

    def data(self) -> dict[str, object]:
        """Return the data of ``bus.error``, without members that are None."""
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


class RequestRefused(GatewayError):
    """A handshake or another request is not served.

    Args:
        status: the HTTP status of the answer.
        code: the kind of refusal, for programs.
        message: the reason, for people.
        headers: additional headers of the answer.
    """

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers or {}

    def data(self) -> dict[str, object]:
        """Return the members of the answer's JSON body."""
        return {"code": self.code, "message": str(self)}


class NotConfigured(GatewayError):
    """A setting names something that does not exist or does not work."""


class NotReady(GatewayError):
    """A gateway that a test started does not serve.

    Args:
        message: the reason.
        log: the end of the gateway's log.
    """

    def __init__(self, message: str, *, log: str) -> None:
        super().__init__(f"{message}; the end of its log:\n{log}")
        self.log = log
