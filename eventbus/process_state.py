"""State that belongs to one process: a forked child renews it.

Python's own hook runs after ``os.fork()``. A server that forks in C, such as uWSGI by default, runs no hook. So code
that uses such state calls ``check_process`` first, which compares process ids.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

__all__ = ["check_process", "renew_in_child"]

_lock = threading.RLock()
_renewals: list[Callable[[], None]] = []
_pid = os.getpid()


def renew_in_child(renew: Callable[[], None]) -> None:
    """Have state renewed in each forked child. Renewals run in the order of registration.

    Args:
        renew: makes the state new. It must not use locks or sockets of the parent.
    """
    _renewals.append(renew)


def check_process() -> None:
    """Renew the state if this is a forked child whose state is still the parent's."""
    if os.getpid() != _pid:
        _renew()


def _renew() -> None:
    global _pid  # noqa: PLW0603 - a process has one id
    with _lock:
        pid = os.getpid()
        if pid != _pid:
            for renew in _renewals:
                renew()
            _pid = pid


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - a thread of the parent may have held it
    _lock = threading.RLock()
    _renew()


os.register_at_fork(after_in_child=_after_fork)
