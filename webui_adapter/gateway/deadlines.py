"""The time of all sessions: when a session's deadlines are looked at, and what follows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from webui_adapter.channels.hub import Hub
from webui_adapter.context import GatewayContext
from webui_adapter.session.session import Session
from webui_adapter.session.states import State
from webui_adapter.session.timer_wheel import TimerWheel

__all__ = ["SessionDeadlines"]

log = logging.getLogger(__name__)

_TICK: Final = 0.25


class SessionDeadlines:
    """Works for one gateway.

    ``on_cut`` hears of a session that was cut off, with its close code; ``changed`` is called when sessions have
    something to write.
    """

    def __init__(
        self,
        context: GatewayContext,
        hub: Hub,
    ) -> None:
        self._clock = context.clock
        self._close_timeout = context.settings.close_timeout
        self._flush = context.flush
        self._hub = hub
        self._wheel: TimerWheel[Session] = TimerWheel(self._clock.now(), _TICK)

    def schedule(self, session: Session, due: float) -> None:
        """Look at the session when that moment has come; instead of when it was to be looked at before."""
        self._wheel.put(session, due)

    def schedule_close(self, session: Session) -> None:
        """The session has been told to go: look whether it went."""
        self._wheel.put(session, session.output.closing_since + self._close_timeout)

    def cancel(self, session: Session) -> None:
        """The session has ended."""
        self._wheel.remove(session)

    async def run(self, on_cut: Callable[[Session, int], None]) -> None:
        """Turn for ever."""
        while True:
            await asyncio.sleep(_TICK)
            now = self._clock.now()
            for session in self._wheel.due(now):
                try:
                    self._tick(session, now, on_cut)
                except Exception:
                    # One session's trouble must not stop the time of all others.
                    log.exception("a session's timer failed")
            self._flush()

    def _tick(self, session: Session, now: float, on_cut: Callable[[Session, int], None]) -> None:
        output = session.output
        line = output.transport
        if session.state is State.CLOSED or line is None:
            return
        if output.close_code is not None and now >= output.closing_since + self._close_timeout:
            # The peer takes nothing, not even its end.
            line.cut()
            on_cut(session, output.close_code)
            return
        due, ping = session.tick(now)
        self._wheel.put(session, due)
        if ping:
            line.ping()
            for name in session.subscriptions.partial_channels():
                channel = self._hub.channels.get(name)
                if channel is not None and channel.live and channel.position is not None:
                    session.subscriptions.send_position(name, channel.position)
