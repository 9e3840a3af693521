"""Connection draining: at shutdown all sessions move to other instances, spread over some seconds."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping

from webui_adapter.context import GatewayContext
from webui_adapter.protocol.close_codes import CloseCode
from webui_adapter.session.session import Session
from webui_adapter.session.states import State

__all__ = ["Drain"]


class Drain:
    """Drains the sessions of one gateway.

    Args:
        context: the shared context.
        sessions: the open sessions by id.
        on_begin: called once, when the instance begins to shut down.

    Attributes:
        started: whether the instance shuts down.
    """

    def __init__(
        self,
        context: GatewayContext,
        sessions: Mapping[str, Session],
        on_begin: Callable[[], None] = lambda: None,
    ) -> None:
        self.started = False
        self._on_begin = on_begin
        self._settings = context.settings
        self._sessions = sessions
        self._spawn = context.spawn
        self._flush = context.flush
        self._empty = asyncio.Event()

    def _notify_sessions(self) -> None:
        """Ask all sessions to reconnect elsewhere, each at its own time within ``drain_spread``."""
        self._begin()
        spread = self._settings.drain_spread
        for session in list(self._sessions.values()):
            if session.state is State.OPEN:
                session.enter(State.LEAVING)
                after = int(random.uniform(0, spread) * 1000)  # noqa: S311 - spreads reconnects
                session.send("bus.drain", {"after_ms": after})
        self._flush()

    async def run(self) -> None:
        """Ask the sessions to leave, wait for them, then close those that remain."""
        self._notify_sessions()
        if self._sessions:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), self._settings.drain_spread + self._settings.shutdown_grace)
        self.close_all()

    def start(self) -> None:
        """Begin to drain in the background. The server may call this once for each connection."""
        if not self.started:
            self._begin()
            self._spawn(self.run())

    def close_all(self) -> None:
        """Close all sessions. Their clients reconnect to another instance."""
        self._begin()
        for session in list(self._sessions.values()):
            session.close(CloseCode.DRAIN, "the gateway shuts down")
        self._flush()

    def _begin(self) -> None:
        if not self.started:
            self.started = True
            self._on_begin()

    def on_empty(self) -> None:
        """Note that the last session has ended."""
        self._empty.set()
