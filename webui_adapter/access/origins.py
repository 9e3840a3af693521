"""Origins of pages that may connect: a defence against cross-site WebSocket hijacking."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["origin_allowed"]


def origin_allowed(origin: str | None, host: str | None, allowed: Collection[str], *, cookie: bool) -> bool:
    """Return whether the gateway serves a request with this ``Origin``.

    A listed origin must be equal. Without a list, the origin's host and port must be those of the request. A request
    without an Origin comes from a program. It is allowed unless it authenticates by a cookie: browsers send cookies
    without being asked, and always with an Origin.

    Args:
        origin: the header ``Origin``; None: the request has none.
        host: the header ``Host``.
        allowed: exact origins; empty: only the request's own host.
        cookie: whether the request authenticates by a cookie.
    """
    if origin is None:
        return not cookie
    if allowed:
        return origin in allowed
    return bool(host) and origin.lower() in (f"http://{host}".lower(), f"https://{host}".lower())
