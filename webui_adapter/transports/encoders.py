"""Encoders: events as WebSocket frames, as text, as server-sent events."""

from __future__ import annotations

from collections.abc import Mapping

from webui_adapter.protocol.control_events import control_event
from webui_adapter.protocol.server_sent_events import sse_event
from webui_adapter.protocol.websocket_frames import text_frame
from webui_adapter.session.batch import Delivery
from webui_adapter.session.output import Output

__all__ = ["FRAME_ENCODER", "SSE_ENCODER", "TEXT_ENCODER", "SseEncoder"]


class SseEncoder:
    """Server-sent events. Each event has the session's whole cursor as its ``id``; control events have none."""

    shares_frames = False
    answers_pings = False

    def event(self, output: Output, delivery: Delivery) -> bytes:
        """Encode an event of a channel.

        Args:
            output: the session's output.
            delivery: the event.

        Returns:
            The bytes of a server-sent event.
        """
        return sse_event(delivery.record.type, delivery.record.event, output.cursor())

    def control(self, output: Output, type_: str, data: Mapping[str, object]) -> bytes:
        # Both control events move the position to resume from.
        """Encode a control event. Those that move the resume position have an ``id`` as well.

        Args:
            output: the session's output.
            type_: the type, ``bus.…``.
            data: the data.

        Returns:
            The bytes of a server-sent event.
        """
        cursor = output.cursor() if type_ in ("bus.position", "bus.release") else None
        return sse_event(type_, control_event(type_, data, int(output.clock.wall() * 1000)), cursor)

    def local(self, type_: str, event: bytes) -> bytes:
        """Encode an event that has no position in its channel.

        Args:
            type_: the event's type.
            event: the event as JSON.

        Returns:
            The bytes of a server-sent event.
        """
        return sse_event(type_, event, None)


SSE_ENCODER = SseEncoder()


class FrameEncoder:
    """WebSocket frames. All sessions share the frame of an event."""

    shares_frames = True
    answers_pings = True

    def event(self, _: Output, delivery: Delivery) -> bytes:
        return delivery.frame

    def control(self, output: Output, type_: str, data: Mapping[str, object]) -> bytes:
        return text_frame(control_event(type_, data, int(output.clock.wall() * 1000)))

    def local(self, _: str, event: bytes) -> bytes:
        return text_frame(event)


class TextEncoder:
    """Texts of ASGI messages."""

    shares_frames = False
    answers_pings = False

    def event(self, _: Output, delivery: Delivery) -> bytes:
        return delivery.record.event

    def control(self, output: Output, type_: str, data: Mapping[str, object]) -> bytes:
        return control_event(type_, data, int(output.clock.wall() * 1000))

    def local(self, _: str, event: bytes) -> bytes:
        return event


FRAME_ENCODER = FrameEncoder()


TEXT_ENCODER = TextEncoder()
