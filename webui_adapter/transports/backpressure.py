"""Backpressure in both directions: a session's queue towards its socket, and pauses for a client that floods."""

from __future__ import annotations

from webui_adapter.access.inbound_limit import InboundLimit
from webui_adapter.gateway.gateway import Gateway
from webui_adapter.protocol.close_codes import CloseCode
from webui_adapter.session.connection import Transport
from webui_adapter.session.session import Session
from webui_adapter.settings import GatewaySettings

__all__ = ["count_inbound", "message_limit", "write_queued"]


def message_limit(settings: GatewaySettings, session: Session) -> int:
    """Return the size of the largest message that a connection may send now.

    Args:
        settings: the bounds of the gateway.
        session: the connection's session.
    """
    if session.principal is None:
        return min(settings.max_auth_size, settings.max_command_size)
    return settings.max_command_size


def count_inbound(
    gateway: Gateway, session: Session, limit: InboundLimit, frames: int, size: int, waiting: int
) -> float | None:
    """Count what a connection has sent, and close one that floods.

    Args:
        gateway: the gateway.
        session: the connection's session.
        limit: the connection's bounds.
        frames: the frames that were parsed.
        size: the bytes that arrived.
        waiting: the bytes that are not parsed yet.

    Returns:
        Seconds for which to read nothing; 0: read on; None: the connection closes, and nothing more is read.
    """
    now = gateway.clock.now()
    wait = limit.charge(frames, size, now, known=session.principal is not None)
    if session.principal is None and waiting > gateway.settings.max_auth_size:
        # Hundreds of such connections must not hold the memory of the gateway.
        _refuse(gateway, session, "bytes")
        return None
    if not wait:
        return 0.0
    if not limit.exhausted(now) and session.output.close_code is None:
        gateway.counters[f"paused.{limit.exceeded}"] += 1
        return wait
    _refuse(gateway, session, limit.exceeded)
    return None


def _refuse(gateway: Gateway, session: Session, exceeded: str) -> None:
    """Close a connection that floods. If it closes already, its answer is not among so many frames."""
    if session.output.close_code is None:
        gateway.counters[f"refused.{exceeded}"] += 1
        session.close(CloseCode.PROTOCOL_VIOLATION, f"far too many {exceeded}")
        gateway.flush()


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
