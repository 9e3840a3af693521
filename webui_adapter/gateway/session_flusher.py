"""Write what sessions have queued: one write for each session, for any number of events."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from webui_adapter.channels.hub import Hub
from webui_adapter.session.session import Session

__all__ = ["SessionFlusher"]


class SessionFlusher:
    """Empties ``hub.dirty``, the list of outputs with something to write.

    Args:
        hub: the channels, which collect these outputs.
        sessions: the open sessions by id.
    """

    def __init__(self, hub: Hub, sessions: Mapping[str, Session]) -> None:
        self._hub = hub
        self._sessions = sessions
        self._recover_behind: Callable[[], None]
        self._schedule_close: Callable[[Session], None]

    def connect(self, recover_behind: Callable[[], None], schedule_close: Callable[[Session], None]) -> None:
        """Name the parts that a flush calls. These parts flush as well, so they are built later.

        Args:
            recover_behind: starts to read the log for the sessions in ``hub.behind``.
            schedule_close: sets the deadline of a session that has been asked to close.
        """
        self._recover_behind = recover_behind
        self._schedule_close = schedule_close

    def flush(self) -> None:
        """Write to all transports, and recover the sessions whose send queue was full."""
        if self._hub.behind:
            self._recover_behind()
        dirty = self._hub.dirty
        while dirty:
            # A write may give other sessions something to write; the next round takes them.
            turn, dirty[:] = dirty[:], ()
            for output in turn:
                transport = output.transport
                if transport is None:
                    output.out.clear()
                    continue
                transport.flush()
                if output.close_code is not None and (session := self._sessions.get(output.session_id)) is not None:
                    self._schedule_close(session)
