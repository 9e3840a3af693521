"""How an instance leaves without a loss: its pages go elsewhere, not all in one moment."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Mapping

from webui_adapter.context import GatewayContext
from webui_adapter.protocol.close_codes import CloseCode
from webui_adapter.session.session import Session
from webui_adapter.session.states import State

__all__ = ["Drain"]


class Drain:
    """Lets the ``sessions`` of one gateway leave.

    Attributes:
        begun: whether the instance is leaving.
    """

    def __init__(
        self,
        context: GatewayContext,
        sessions: Mapping[str, Session],
    ) -> None:
        self.started = False
        self._settings = context.settings
        self._sessions = sessions
        self._spawn = context.spawn
        self._flush = context.flush
        self._empty = asyncio.Event()

    def _notify_sessions(self) -> None:
        """Tell the sessions to leave, each at its own moment within the setting's time."""
        self.started = True
        spread = self._settings.drain_spread
        for session in list(self._sessions.values()):
            if session.state is State.OPEN:
                session.enter(State.LEAVING)
                after = int(random.uniform(0, spread) * 1000)  # noqa: S311 - spreads reconnects
                session.send("bus.drain", {"after_ms": after})
        self._flush()

    async def run(self) -> None:
        """Be gone without a loss: tell the sessions, give them time to go elsewhere, close those that stay."""
        self._notify_sessions()
        if self._sessions:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), self._settings.drain_spread + self._settings.shutdown_grace)
        self.close_all()

    def start(self) -> None:
        """Begin to leave: the server says that it is leaving, maybe once for each connection."""
        if not self.started:
            self.started = True
            self._spawn(self.run())

    def close_all(self) -> None:
        """Close all sessions: they come back elsewhere."""
        self.started = True
        for session in list(self._sessions.values()):
            session.close(CloseCode.DRAIN, "the gateway is leaving")
        self._flush()

    def on_empty(self) -> None:
        """The last session has gone."""
        self._empty.set()
