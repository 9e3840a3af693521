"""Event and operation ids: UUIDv7 (RFC 9562), ascending within a process even when the clock steps back."""

from __future__ import annotations

import os
import threading

from eventbus.clock import now_ms
from eventbus.process_state import check_process, renew_in_child

__all__ = ["event_id"]


class _Sequence:
    """The ids of one process: 48 bits of milliseconds, 26 bits of counter, 48 bits that are the process's."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Take new random bits: at the start, and after a fork. Otherwise parent and child would make the same ids."""
        self._lock = threading.Lock()
        self._own = os.urandom(6).hex()
        self._last = 0
        self._shared = -1, ""

    def next(self, now_ms: int) -> str:
        with self._lock:
            # Clock and counter are one number, so a full counter or a clock that steps back only carries on counting.
            moment = now_ms << 26
            if moment <= self._last:
                moment = self._last + 1
            self._last = moment
            head, text = self._shared
            if moment >> 14 != head:
                # The ids of a millisecond share this text. It is made once: that is most of the work.
                head = moment >> 14
                text = f"{head >> 28:08x}-{head >> 12 & 0xFFFF:04x}-7{head & 0xFFF:03x}-"
                self._shared = head, text
        # 48 bits ms | 4 bits version | 12 high counter bits | 2 bits variant | 14 low counter bits | 48 own bits.
        return f"{text}{0x8000 | moment & 0x3FFF:04x}-{self._own}"


_sequence = _Sequence()
renew_in_child(_sequence.renew)


def event_id() -> str:
    """Return a new id of 36 characters. The ids of one process sort in order of creation."""
    check_process()
    return _sequence.next(now_ms())
