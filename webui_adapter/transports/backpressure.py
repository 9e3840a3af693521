"""Write what waits in a session to its transport."""

from __future__ import annotations

from webui_adapter.session.connection import Transport
from webui_adapter.session.session import Session

__all__ = ["write_queued"]


def write_queued(session: Session, line: Transport, limit_bytes: int) -> None:
    """The socket takes again: the backlog goes out piece by piece, as long as it does."""
    output = session.output
    output.resume_writing(limit_bytes)
    line.flush()
    while not output.paused and output.close_code is None and (output.send_queue is not None or output.idle_callbacks):
        output.resume_writing(limit_bytes)
        line.flush()
