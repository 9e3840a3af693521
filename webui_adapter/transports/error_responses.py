"""The one mapping from errors to HTTP answers. Each body is JSON with ``code``, ``message`` and what is known.

``{"code":"rate_limited","message":"…","limit":200,"scope":"user","retry_ms":5}``
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Final

from pydantic import ValidationError
from starlette.responses import Response

from eventbus.errors import (
    EventBusError,
    InvalidEmission,
    NoDeadLetter,
    RateLimited,
    TooManyRevocations,
    TransportError,
)
from webui_adapter.errors import AuthenticationFailed, CommandRefused, RequestRefused, TokenRefused

__all__ = ["bad_request", "command_status", "error_response", "json_response", "refusal_of"]

_NAME_LENGTH: Final = 64
_RETRY_SECONDS: Final = 1
_STATUS: Final = {
    "forbidden": 403,
    "not_found": 404,
    "unknown_operation": 404,
    "too_large": 413,
    "rate_limited": 429,
    "busy": 503,
    "read_only": 503,
    "unavailable": 503,
}


def command_status(code: str) -> int:
    """Return the HTTP status for the code of a refused command; 400 unless the code says more.

    Args:
        code: ``CommandRefused.code``.
    """
    return _STATUS.get(code, 400)


def refusal_of(error: EventBusError) -> CommandRefused | RequestRefused:
    """Translate an error into a refusal with a code.

    Args:
        error: what went wrong.

    Returns:
        The refusal; ``error`` itself if it is one.

    Raises:
        EventBusError: ``error`` is a fault of the gateway and not of the request.
    """
    match error:
        case CommandRefused() | RequestRefused():
            return error
        case TokenRefused():
            code = "revoked" if error.revoked else "unauthenticated"
            return RequestRefused(401, code, str(error), {"WWW-Authenticate": "Bearer"})
        case NoDeadLetter():
            return CommandRefused("not_found", str(error))
        case InvalidEmission(limit=limit):
            number = limit if isinstance(limit, int) else None
            return CommandRefused("bad_request", str(error), field=error.field, limit=number)
        case RateLimited():
            wait_ms = int(error.retry_after * 1000)
            return CommandRefused("rate_limited", str(error), limit=error.limit, retry_ms=wait_ms)
        case TransportError() | TooManyRevocations() | AuthenticationFailed():
            return CommandRefused("unavailable", str(error), retry_ms=_RETRY_SECONDS * 1000)
    raise error


def bad_request(error: ValidationError) -> CommandRefused:
    """Translate what pydantic says about a request.

    Args:
        error: what is wrong.

    Returns:
        The refusal. It quotes nothing that the client sent but the beginning of a member's name.
    """
    first = error.errors(include_url=False, include_input=False)[0]
    field = str(first["loc"][0]) if first["loc"] else "body"
    ctx = first.get("ctx", {})
    limit = next((ctx[name] for name in ("le", "ge", "max_length") if name in ctx), None)
    # The client chose the member's name: it may be long, and may hold half a surrogate pair.
    name = field[:_NAME_LENGTH].encode(errors="replace").decode()
    return CommandRefused("bad_request", f"{name}: {first['msg']}", field=name, limit=limit)


def error_response(error: EventBusError, headers: Mapping[str, str] | None = None) -> Response:
    """Answer a request with an error.

    Args:
        error: what went wrong.
        headers: headers of the answer, for example those of CORS.

    Returns:
        The answer.

    Raises:
        EventBusError: ``error`` is a fault of the gateway and not of the request.
    """
    refusal, all_headers = refusal_of(error), dict(headers or {})
    if isinstance(refusal, RequestRefused):
        return json_response(refusal.data(), refusal.status, {**all_headers, **refusal.headers})
    if refusal.retry_ms is not None:
        all_headers["Retry-After"] = str(max(1, math.ceil(refusal.retry_ms / 1000)))
    return json_response(refusal.data(), command_status(refusal.code), all_headers)


def json_response(body: object, status: int, headers: Mapping[str, str]) -> Response:
    """Answer with JSON in ASCII: a client's own text may hold half a surrogate pair, which UTF-8 cannot encode.

    Args:
        body: what to encode.
        status: the HTTP status.
        headers: the headers.

    Returns:
        The answer.
    """
    return Response(json.dumps(body, separators=(",", ":")), status, dict(headers), "application/json")
