"""Ends what a run started, servers too, when the process of the mutation run has ended, however it ended."""

from __future__ import annotations

import os
import signal

__all__ = ["Guard"]


class Guard:
    """A pipe whose writing end only the process of the mutation run has open.

    The system closes it when that process ends, by SIGKILL too.
    """

    def __init__(self) -> None:
        self._read, write = os.pipe()
        self._write: int | None = write

    def watch(self) -> None:
        """Fork a process that waits for the end, and then kills the process group of this one.

        Call it in a forked process, after ``setsid``.
        """
        if self._write is not None:
            os.close(self._write)
            self._write = None
        if os.fork():
            return
        # An open copy of another pipe would hide the end of its owner.
        os.closerange(0, self._read)
        os.closerange(self._read + 1, 4096)
        os.read(self._read, 1)
        os.killpg(0, signal.SIGKILL)
