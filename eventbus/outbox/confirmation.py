"""Waiting until a browser has an event: for a task that has to know.

It asks Redis at growing intervals. A person's browser answers within seconds, and a subscription would have to recover
lost messages as the gateway does.
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
    """The acknowledgement of one event.

    Args:
        connect: makes a publisher.
        channel: the event's channel.
        id_: the event's id.
    """

    def __init__(self, connect: Callable[[], Publisher], channel: str, id_: str) -> None:
        self._connect = connect
        self._channel = channel
        self._id = id_

    def wait(self, timeout: float) -> bool:
        """Return whether the event was acknowledged in time.

        Args:
            timeout: seconds.

        Raises:
            DeliveryFailed: the event is a dead letter.
        """
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
        """``wait`` for an event loop.

        Args:
            timeout: seconds.

        Returns:
            As ``wait``.
        """
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
            status, reason = publisher.delivery_status(self._channel, self._id)
        except Unavailable:
            return False  # unknown now; a later request may get an answer
        if status == "dead":
            raise DeliveryFailed(self._id, self._channel, reason)
        return status == "acked"


def _pauses(timeout: float) -> Iterator[float]:
    """Seconds to wait between two requests, until the time is over."""
    end = time.monotonic() + timeout
    pause = _FIRST_PAUSE
    while (left := end - time.monotonic()) > 0:
        yield min(pause, left)
        pause = min(pause * 1.5, _LONGEST_PAUSE)
