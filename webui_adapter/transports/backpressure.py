"""Backpressure in both directions: a session's queue towards its socket, and pauses for a client that floods."""

from __future__ import annotations

from webui_adapter.access.inbound_limit import InboundLimit
from webui_adapter.gateway.gateway import Gateway
from webui_adapter.protocol.close_codes import CloseCode
from webui_adapter.session.connection import Transport
from webui_adapter.session.session import Session

__all__ = ["count_inbound", "write_queued"]


def count_inbound(gateway: Gateway, session: Session, limit: InboundLimit, frames: int, size: int) -> float | None:
    """Count what a connection has sent, and close one that floods.

    Args:
        gateway: the gateway.
        session: the connection's session.
        limit: the connection's bounds.
        frames: the frames that were parsed.
        size: the bytes that arrived.

    Returns:
        Seconds for which to read nothing; 0: read on; None: the connection closes, and nothing more is read.
    """
    now = gateway.clock.now()
    wait = limit.charge(frames, size, now, known=session.principal is not None)
    if not wait:
        return 0.0
    if session.output.close_code is not None:
        return None  # The client's answer to the close frame is not among so many frames.
    if not limit.exhausted(now):
        gateway.counters[f"paused.{limit.exceeded}"] += 1
        return wait
    gateway.counters[f"refused.{limit.exceeded}"] += 1
    session.close(CloseCode.PROTOCOL_VIOLATION, f"far too many {limit.exceeded}")
    gateway.flush()
    return None


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
