"""Deadlines of all sessions: heartbeats (pings), tokens that expire, clients that do not answer."""

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
    """Runs the timer wheel of one gateway.

    Args:
        context: the shared context.
        hub: the channels, whose positions go out with each ping.
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
        """Set the session's next deadline. It replaces the one before.

        Args:
            session: the session.
            due: the clock's time in seconds.
        """
        self._wheel.put(session, due)

    def schedule_close(self, session: Session) -> None:
        """Set the deadline of a session that the gateway has asked to close.

        Args:
            session: the session.
        """
        self._wheel.put(session, session.output.closing_since + self._close_timeout)

    def cancel(self, session: Session) -> None:
        """Remove the deadline of a session that has ended.

        Args:
            session: the session.
        """
        self._wheel.remove(session)

    async def run(self, on_cut: Callable[[Session, int], None]) -> None:
        """Check due deadlines until cancelled.

        Args:
            on_cut: called with a session and its close code after its connection was cut.
        """
        while True:
            await asyncio.sleep(_TICK)
            now = self._clock.now()
            for session in self._wheel.due(now):
                try:
                    self._tick(session, now, on_cut)
                except Exception:
                    # A failure in one session must not stop the deadlines of all others.
                    log.exception("cannot check the deadline of a session")
            self._flush()

    def _tick(self, session: Session, now: float, on_cut: Callable[[Session, int], None]) -> None:
        output = session.output
        line = output.transport
        if session.state is State.CLOSED or line is None:
            return
        if output.close_code is not None and now >= output.closing_since + self._close_timeout:
            # The client reads nothing, not even the close frame.
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
