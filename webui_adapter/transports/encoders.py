"""Encoders: records as WebSocket frames, as text, as server-sent events."""

from __future__ import annotations

from collections.abc import Mapping

from webui_adapter.protocol.control_events import control_event
from webui_adapter.protocol.server_sent_events import sse_event
from webui_adapter.protocol.websocket_frames import text_frame
from webui_adapter.session.batch import Delivery
from webui_adapter.session.output import Output

__all__ = ["FRAME_ENCODER", "SSE_ENCODER", "TEXT_ENCODER", "SseEncoder"]


class SseEncoder:
    """Events with the session's whole cursor as ``id``. The gateway's own words have none: they are not resumed."""

    shares_frames = False
    answers_pings = False

    def event(self, output: Output, delivery: Delivery) -> bytes:
        return sse_event(delivery.record.type, delivery.record.event, output.cursor())

    def control(self, output: Output, type_: str, data: Mapping[str, object]) -> bytes:
        # A position is where to resume from, though no event: it has an id too.
        cursor = output.cursor() if type_ in ("bus.position", "bus.release") else None
        return sse_event(type_, control_event(type_, data, int(output.clock.wall() * 1000)), cursor)

    def local(self, type_: str, event: bytes) -> bytes:
        return sse_event(type_, event, None)


SSE_ENCODER = SseEncoder()


class FrameEncoder:
    """Events as the prepared frames that all sessions share."""

    shares_frames = True
    answers_pings = True

    def event(self, _: Output, delivery: Delivery) -> bytes:
        return delivery.frame

    def control(self, output: Output, type_: str, data: Mapping[str, object]) -> bytes:
        return text_frame(control_event(type_, data, int(output.clock.wall() * 1000)))

    def local(self, _: str, event: bytes) -> bytes:
        return text_frame(event)


class TextEncoder:
    """Events as the texts of ASGI messages."""

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
