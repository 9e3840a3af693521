"""Which pages may connect (against cross-site WebSocket hijacking)."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["origin_allowed"]


def origin_allowed(origin: str | None, host: str | None, allowed: Collection[str], *, cookie: bool) -> bool:
    """Whether a request with this ``Origin`` and ``Host`` may be served.

    Exact comparison with the list; without a list the origin's host and port must be the request's own. A program
    without an Origin may come, unless it authenticates by a cookie: browsers send cookies unasked, and always with an
    Origin.
    """
    if origin is None:
        return not cookie
    if allowed:
        return origin in allowed
    return bool(host) and origin.lower() in (f"http://{host}".lower(), f"https://{host}".lower())
