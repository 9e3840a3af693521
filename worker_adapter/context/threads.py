"""``with_task_context``: threads that emit events and report progress for the task that started them."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from functools import wraps
from typing import ParamSpec, TypeVar

__all__ = ["with_task_context"]

P = ParamSpec("P")
T = TypeVar("T")


def with_task_context(function: Callable[P, T]) -> Callable[P, T]:
    """Bind a function to the current task, its operation and all other context variables.

        with ThreadPoolExecutor() as pool:
            list(pool.map(with_task_context(read), pages))
        Thread(target=with_task_context(watch)).start()

    Each call runs in a separate copy of the context. Any number of threads may call the function at the same time. A
    context variable that one call sets is not visible to the others.

    Args:
        function: the function that a thread will call.

    Returns:
        A function with the same signature.
    """
    context = copy_context()

    @wraps(function)
    def bound(*args: P.args, **kwargs: P.kwargs) -> T:
        # Two threads cannot enter the same context at the same time.
        return context.copy().run(function, *args, **kwargs)

    return bound
