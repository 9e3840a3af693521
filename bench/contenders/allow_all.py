"""The authoriser of the benchmark: each user may subscribe to each collection."""

from __future__ import annotations

from webui_adapter.access.principal import Principal

__all__ = ["may_read"]


def may_read(_: Principal, __: str) -> bool:
    """Allow everything."""
    return True
