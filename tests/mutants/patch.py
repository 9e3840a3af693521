"""Puts a changed source into a process that has imported the original: only functions, and Lua scripts."""

from __future__ import annotations

import functools
import gc
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

__all__ = ["Replacements", "forget_cached", "patch", "replacements"]

_OPTIMIZED = 0x1  # a function's code has this flag, a module's and a class's have not

Replacements = list[tuple[CodeType, CodeType]]
"""Code of functions, as it is and as it becomes."""


def replacements(path: str, original: bytes, changed: bytes) -> Replacements | None:
    """Return what a change replaces.

    Args:
        path: name of the file, as the process imported it.
        original: its source.
        changed: its changed source.

    Returns:
        The outermost functions that differ. None if anything else differs: a constant of the module, a default.
    """
    old = compile(original, path, "exec", dont_inherit=True)
    new = compile(changed, path, "exec", dont_inherit=True)
    if _frame(old) != _frame(new):
        return None
    pairs = list(zip(_functions(old), _functions(new), strict=True))
    return [(one, other) for one, other in pairs if _facts(one) != _facts(other)]


def patch(found: Replacements, filename: str) -> int:
    """Replace the code of functions that exist in this process.

    Args:
        found: the replacements.
        filename: end of the path of their file.

    Returns:
        How many functions were changed.
    """
    count = 0
    new_code = {(old.co_qualname, old.co_firstlineno): new for old, new in found}
    for function in [one for one in gc.get_objects() if isinstance(one, FunctionType)]:
        code = function.__code__
        new = new_code.get((code.co_qualname, code.co_firstlineno))
        if new is not None and code.co_filename.endswith(filename):
            function.__code__ = new
            count += 1
    return count


def forget_cached(packages: tuple[str, ...]) -> None:
    """Clear the caches of functions of packages, so that they read their files again."""
    for cached in [one for one in gc.get_objects() if isinstance(one, functools._lru_cache_wrapper)]:
        if str(getattr(cached, "__module__", "")).startswith(packages):
            cached.cache_clear()


def _functions(code: CodeType) -> Iterator[CodeType]:
    """The functions of a module or of the classes in it, not those within functions."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            if constant.co_flags & _OPTIMIZED:
                yield constant
            else:
                yield from _functions(constant)


def _frame(code: CodeType) -> Any:
    """A module or class without the content of its functions and without positions."""
    inner = [
        (part.co_qualname if part.co_flags & _OPTIMIZED else _frame(part))
        if isinstance(part, CodeType)
        else _exact(part)
        for part in code.co_consts
    ]
    return code.co_code, code.co_names, inner


def _facts(code: CodeType) -> Any:
    """All that a function does, without positions."""
    inner = [_facts(part) if isinstance(part, CodeType) else _exact(part) for part in code.co_consts]
    return code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_exceptiontable, inner


def _exact(constant: object) -> tuple[type, str]:
    """A constant; 1, 1.0 and True differ."""
    return type(constant), repr(constant)
