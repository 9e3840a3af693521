"""Functions of the application that a setting names as ``module:function``."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

from webui_adapter.errors import NotConfigured

__all__ = ["load_function"]


def load_function(variable: str, path: str) -> Callable[..., Any]:
    """Import a function.

    Args:
        variable: the variable of the setting, for the error.
        path: ``module:function``.

    Returns:
        The function.

    Raises:
        NotConfigured: the module or the function does not exist.
    """
    module, _, name = path.partition(":")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise NotConfigured(f"cannot import {variable}={path!r}, which must read module:function: {error}") from error
    if not callable(found):
        raise NotConfigured(f"cannot use {variable}={path!r}: it is not callable")
    return cast("Callable[..., Any]", found)
