"""Backpressure: a socket accepts bytes again, and the session's queue moves on."""

from __future__ import annotations

from webui_adapter.session.connection import Transport
from webui_adapter.session.session import Session

__all__ = ["write_queued"]


def write_queued(session: Session, transport: Transport, limit_bytes: int) -> None:
    """Write the queue of a session whose socket accepts bytes again, piece by piece, until the socket is full.

    Args:
        session: the session.
        transport: its transport.
        limit_bytes: the size of a piece.
    """
    output = session.output
    output.resume_writing(limit_bytes)
    transport.flush()
    while not output.paused and output.close_code is None and (output.send_queue is not None or output.idle_callbacks):
        output.resume_writing(limit_bytes)
        transport.flush()
