"""State that belongs to one process: a forked child renews it.

Python's own hook runs after ``os.fork()``. A server that forks in C, such as uWSGI by default, runs no hook. So code
that uses such state calls ``check_process`` first.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
from collections.abc import Callable

__all__ = ["check_process", "renew_in_child"]

_WIPE_ON_FORK = 18  # MADV_WIPEONFORK of Linux 4.14: a child finds zeros in the page

_lock = threading.RLock()
_renewals: list[Callable[[], None]] = []
_pid = os.getpid()


def _marked_page() -> mmap.mmap | None:
    """A page whose first byte is 1 in this process and 0 in a forked child; None where there is no such thing."""
    if not sys.platform.startswith("linux"):
        return None
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        page.madvise(_WIPE_ON_FORK)
    except (OSError, ValueError):
        return None
    page[0] = 1
    return page


# Reading it is cheaper than os.getpid(), which took 2 % of the instructions of an emit.
_page = _marked_page()


def renew_in_child(renew: Callable[[], None]) -> None:
    """Have state renewed in each forked child. Renewals run in the order of registration.

    Args:
        renew: makes the state new. It must not use locks or sockets of the parent.
    """
    _renewals.append(renew)


def check_process() -> None:
    """Renew the state if this is a forked child whose state is still the parent's."""
    if _page is None:
        if os.getpid() != _pid:
            _renew()
    elif not _page[0]:
        _renew()


def _renew() -> None:
    global _pid  # noqa: PLW0603 - a process has one id
    with _lock:
        pid = os.getpid()
        if pid != _pid:
            for renew in _renewals:
                renew()
            _pid = pid
        if _page is not None:
            _page[0] = 1


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - a thread of the parent may have held it
    _lock = threading.RLock()
    _renew()


os.register_at_fork(after_in_child=_after_fork)
