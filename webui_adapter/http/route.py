"""Routes whose answers no cache keeps and no browser guesses the type of."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

__all__ = ["HardenedRoute"]


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
