"""Answers that no cache keeps and no browser guesses the type of."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from webui_adapter.transports.error_responses import json_response

__all__ = ["HardenedRoute", "answer_unknown_path"]

_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class HardenedRoute(APIRoute):
    """A route that adds ``X-Content-Type-Options``, and ``Cache-Control: no-store`` unless the answer has another."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, with the headers added to its answers."""
        handler = super().get_route_handler()

        async def hardened(request: Request) -> Response:
            response = await handler(request)
            response.headers.setdefault("Cache-Control", "no-store")
            response.headers["X-Content-Type-Options"] = "nosniff"
            return response

        return hardened


async def answer_unknown_path(request: Request, error: Exception) -> Response:
    """Answer a request that no route takes, as all errors are answered. For the stand-alone gateway.

    Args:
        request: the request.
        error: Starlette's error, 404 or 405.

    Returns:
        The answer.
    """
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        body = {"code": "method_not_allowed", "message": f"this path does not take {request.method}"}
    else:
        body = {"code": "not_found", "message": "no such path"}
    return json_response(body, error.status_code, {**_HEADERS, **(error.headers or {})})
