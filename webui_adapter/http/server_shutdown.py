"""Notice that the server shuts down, on any uvicorn and without an option.

uvicorn ends an application's lifespan only after all connections have ended, and an event stream never ends by itself.
``HttpProtocol`` notices the shutdown through its connections. Without that option the gateway reads ``should_exit``
of the server, which uvicorn has installed as the handler of SIGTERM.
"""

from __future__ import annotations

import asyncio
import signal
from typing import Final

from uvicorn import Server

from webui_adapter.gateway.draining import Drain

__all__ = ["drain_with_server"]

_INTERVAL: Final = 0.25  # seconds


async def drain_with_server(drain: Drain) -> None:
    """Wait until the server of this process shuts down, then drain the gateway.

    Under ``--reload`` no other instance could take the sessions. They are closed immediately, and reconnect to the new
    code. Without a server of uvicorn in the main thread this returns immediately.

    Args:
        drain: the gateway's drain.
    """
    server = _server()
    if server is None:
        return
    while not server.should_exit:  # noqa: ASYNC110 - uvicorn offers no event
        await asyncio.sleep(_INTERVAL)
    if server.config.should_reload:
        drain.close_all()
    else:
        drain.start()


def _server() -> Server | None:
    for number in (signal.SIGTERM, signal.SIGINT):
        owner = getattr(signal.getsignal(number), "__self__", None)
        if isinstance(owner, Server):
            return owner
    return None
