"""Access to collections. An application replaces the default: ``WEBUI_AUTHORISER=package.module:function``."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol, cast

from webui_adapter.access.application_function import load_function
from webui_adapter.access.principal import Principal

__all__ = ["Authoriser", "by_claim", "load_authoriser"]


class Authoriser(Protocol):
    """Decides whether a user may read a collection.

    A function, plain or async. An exception counts as no.
    """

    def __call__(self, principal: Principal, collection: str, /) -> bool | Awaitable[bool]:
        """Decide about one collection.

        Args:
            principal: the user and the claims of the token.
            collection: the collection's id.

        Returns:
            Whether the user may read it.
        """
        ...


def by_claim(principal: Principal, collection: str) -> bool:
    """Allow the collections that the token lists in its claim ``collections``.

    Args:
        principal: the user and the claims of the token.
        collection: the collection's id.

    Returns:
        Whether the user may read it.
    """
    return collection in principal.collections


def load_authoriser(path: str) -> Authoriser:
    """Import an authoriser.

    Args:
        path: ``module:function``.

    Returns:
        The function.

    Raises:
        NotConfigured: the module or the function does not exist.
    """
    return cast("Authoriser", load_function("WEBUI_AUTHORISER", path))
