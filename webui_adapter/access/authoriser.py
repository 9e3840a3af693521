"""Who may read which collection. An application replaces it: ``WEBUI_AUTHORISER=package.module:function``."""

from __future__ import annotations

from collections.abc import Awaitable
from importlib import import_module
from typing import Protocol, cast

from webui_adapter.access.tokens import Principal
from webui_adapter.errors import NotConfigured

__all__ = ["Authoriser", "by_claim", "load_authoriser"]


class Authoriser(Protocol):
    """May ``principal`` read this collection? Plain or async; an exception counts as no."""

    def __call__(self, principal: Principal, collection: str, /) -> bool | Awaitable[bool]: ...


def by_claim(principal: Principal, collection: str) -> bool:
    """Yes for the collections that the token lists in its claim ``collections``."""
    return collection in principal.collections


def load_authoriser(path: str) -> Authoriser:
    """Import ``module:function``.

    Raises:
        NotConfigured: there is no such module or function.
    """
    module, _, name = path.partition(":")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise NotConfigured(f"WEBUI_AUTHORISER {path!r} must read module:function and exist: {error}") from error
    if not callable(found):
        raise NotConfigured(f"WEBUI_AUTHORISER {path!r} is not callable")
    return cast("Authoriser", found)
