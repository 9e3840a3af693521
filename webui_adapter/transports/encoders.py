"""Encoders: records as WebSocket frames, as text, as server-sent events."""

from __future__ import annotations

from collections.abc import Mapping

from webui_adapter.protocol.control_events import word
from webui_adapter.protocol.server_sent_events import sse_event
from webui_adapter.protocol.websocket_frames import text_frame
from webui_adapter.session.batch import Delivery
from webui_adapter.session.output import Output

__all__ = ["FRAMES", "FRAMING", "TEXTS", "SseEncoder"]


class SseEncoder:
    """Events with the session's whole cursor as ``id``. The gateway's own words have none: they are not resumed."""

    shared = False
    pongs = False

    def event(self, outlet: Output, delivery: Delivery) -> bytes:
        return sse_event(delivery.record.type, delivery.record.event, outlet.cursor())

    def word(self, outlet: Output, type_: str, data: Mapping[str, object]) -> bytes:
        # A position is where to resume from, though no event: it has an id too.
        cursor = outlet.cursor() if type_ in ("bus.position", "bus.release") else None
        return sse_event(type_, word(type_, data, int(outlet.clock.wall() * 1000)), cursor)

    def local(self, type_: str, event: bytes) -> bytes:
        return sse_event(type_, event, None)


FRAMING = SseEncoder()


class FrameEncoder:
    """Events as the prepared frames that all sessions share."""

    shared = True
    pongs = True

    def event(self, _: Output, delivery: Delivery) -> bytes:
        return delivery.frame

    def word(self, outlet: Output, type_: str, data: Mapping[str, object]) -> bytes:
        return text_frame(word(type_, data, int(outlet.clock.wall() * 1000)))

    def local(self, _: str, event: bytes) -> bytes:
        return text_frame(event)


class TextEncoder:
    """Events as the texts of ASGI messages."""

    shared = False
    pongs = False

    def event(self, _: Output, delivery: Delivery) -> bytes:
        return delivery.record.event

    def word(self, outlet: Output, type_: str, data: Mapping[str, object]) -> bytes:
        return word(type_, data, int(outlet.clock.wall() * 1000))

    def local(self, _: str, event: bytes) -> bytes:
        return event


FRAMES = FrameEncoder()


TEXTS = TextEncoder()
