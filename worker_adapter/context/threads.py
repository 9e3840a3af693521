"""``with_task_context``: threads do not inherit on whose behalf the code runs; what is carried does."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from functools import wraps
from typing import ParamSpec, TypeVar

__all__ = ["with_task_context"]

P = ParamSpec("P")
T = TypeVar("T")


def with_task_context(function: Callable[P, T]) -> Callable[P, T]:
    """Bind a function to the task, operation and other context variables of here, for a thread that calls it.

        with ThreadPoolExecutor() as pool:
            list(pool.map(with_task_context(read), pages))
        Thread(target=with_task_context(watch)).start()

    Each call has a copy of its own, so any number of threads may call it at the same time; what one sets, none of the
    others sees.
    """
    context = copy_context()

    @wraps(function)
    def carried(*args: P.args, **kwargs: P.kwargs) -> T:
        # A context can be entered by one thread at a time.
        return context.copy().run(function, *args, **kwargs)

    return carried
