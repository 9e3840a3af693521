"""How an instance leaves without a loss: its pages go elsewhere, not all in one moment."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine, Mapping

from webui_adapter.protocol.close_codes import CloseCode
from webui_adapter.session.session import Session
from webui_adapter.session.states import State
from webui_adapter.settings import GatewaySettings

__all__ = ["Drain"]


class Drain:
    """Of one gateway, whose ``sessions`` these are.

    ``spawn`` runs a coroutine, ``flush`` writes what sessions have to say.

    Attributes:
        begun: whether the instance is leaving.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        sessions: Mapping[str, Session],
        spawn: Callable[[Coroutine[object, object, None]], None],
        flush: Callable[[], None],
    ) -> None:
        self.started = False
        self._settings = settings
        self._sessions = sessions
        self._spawn = spawn
        self._flush = flush
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
