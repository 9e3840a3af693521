"""The gateway's authoriser in the benchmark: everybody may watch every collection."""

from __future__ import annotations

from webui_adapter.access.tokens import Principal

__all__ = ["may_read"]


def may_read(_: Principal, __: str) -> bool:
    """Yes."""
    return True
