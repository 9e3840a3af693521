"""Notice that the server shuts down, on any server and without an option.

Servers end an application's lifespan only after all connections have ended, and an event stream never ends by itself.
``HttpProtocol`` notices the shutdown through its connections. Without that option the gateway reads ``should_exit``
of uvicorn's server, which uvicorn has installed as the handler of SIGTERM. With other servers it listens to SIGTERM.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Final

from uvicorn import Server

from webui_adapter.gateway.draining import Drain

__all__ = ["drain_with_server", "find_server"]

_INTERVAL: Final = 0.25  # seconds


async def drain_with_server(drain: Drain) -> None:
    """Wait until the server of this process shuts down, then drain the gateway.

    Under ``--reload`` no other instance could take the sessions. They are closed immediately, and reconnect to the new
    code. Outside of the main thread this returns immediately.

    Args:
        drain: the gateway's drain.
    """
    server = find_server()
    if server is not None:
        while not server.should_exit:  # noqa: ASYNC110 - uvicorn offers no event
            await asyncio.sleep(_INTERVAL)
        if server.config.should_reload:
            drain.close_all()
        else:
            drain.start()
    elif threading.current_thread() is threading.main_thread():
        await _Termination().wait()
        drain.start()


def find_server() -> Server | None:
    """Return uvicorn's server in the main thread of this process; None: there is none."""
    for number in (signal.SIGTERM, signal.SIGINT):
        owner = getattr(signal.getsignal(number), "__self__", None)
        if isinstance(owner, Server):
            return owner
    return None


class _Termination:
    """Notices SIGTERM, and leaves the signal to the server's handler.

    A server that handles signals in its event loop (granian, hypercorn) gets them from the loop's wakeup descriptor.
    Python also calls its own handler, which is an empty one of the loop.
    """

    def __init__(self) -> None:
        self._handler = self._notice
        self._former: object = None
        self._noticed = False

    async def wait(self) -> None:
        """Wait for the signal. A server may set its handler after it has started the application."""
        try:
            while not self._noticed:
                self._attach()
                await asyncio.sleep(_INTERVAL)
        finally:
            self._detach()

    def _attach(self) -> None:
        present = signal.getsignal(signal.SIGTERM)
        if callable(present) and present is not self._handler:
            self._former = present
            self._set(self._handler)

    def _detach(self) -> None:
        if callable(self._former) and signal.getsignal(signal.SIGTERM) is self._handler:
            self._set(self._former)

    def _set(self, handler: Callable[[int, FrameType | None], object]) -> None:
        signal.signal(signal.SIGTERM, handler)
        signal.siginterrupt(signal.SIGTERM, False)  # as event loops do

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self._noticed = True
        if callable(self._former):
            self._former(number, frame)
