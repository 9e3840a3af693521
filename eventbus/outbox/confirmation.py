"""Waiting until a browser has an event: for a task that has to know.

Redis is asked, at growing intervals: who waits this way waits for a person, and a subscription would have to be
as careful about what it misses as the gateway's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

from eventbus.backends.ports import Publisher
from eventbus.errors import DeliveryFailed, Unavailable

__all__ = ["DeliveryConfirmation"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.25


class DeliveryConfirmation:
    """For one event that its user has to acknowledge. ``connect`` makes a publisher for it."""

    def __init__(self, connect: Callable[[], Publisher], channel: str, id_: str) -> None:
        self._connect = connect
        self._channel = channel
        self._id = id_

    def wait(self, timeout: float) -> bool:
        """Whether it was acknowledged within ``timeout`` seconds. Raises DeliveryFailed."""
        publisher = self._connect()
        try:
            for pause in _pauses(timeout):
                if self._acknowledged(publisher):
                    return True
                time.sleep(pause)
            return self._acknowledged(publisher)
        finally:
            publisher.close()

    async def until(self, timeout: float) -> bool:  # noqa: ASYNC109 - the same signature as wait
        """``wait`` for an event loop."""
        publisher = self._connect()
        try:
            for pause in _pauses(timeout):
                if await asyncio.to_thread(self._acknowledged, publisher):
                    return True
                await asyncio.sleep(pause)
            return await asyncio.to_thread(self._acknowledged, publisher)
        finally:
            await asyncio.to_thread(publisher.close)

    def _acknowledged(self, publisher: Publisher) -> bool:
        try:
            standing, reason = publisher.delivery_status(self._channel, self._id)
        except Unavailable:
            return False  # nothing is known; it may be when Redis is back
        if standing == "dead":
            raise DeliveryFailed(self._id, self._channel, reason)
        return standing == "acked"


def _pauses(timeout: float) -> Iterator[float]:
    """Seconds to wait between two questions, until the time is over."""
    end = time.monotonic() + timeout
    pause = _FIRST_PAUSE
    while (left := end - time.monotonic()) > 0:
        yield min(pause, left)
        pause = min(pause * 1.5, _LONGEST_PAUSE)
