"""WebSocket frames, server-sent events and control events, compared with the golden ones."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from eventbus.protocol.cursor import Position, parse_cursor
from eventbus.protocol.records import parse_publication
from eventbus.protocol.topics import check_id, check_topic
from tests.webui_adapter.parts import EVENT_STREAM, new_session, payloads_of, record
from webui_adapter.protocol.close_codes import CloseCode
from webui_adapter.protocol.control_events import control_event
from webui_adapter.protocol.server_sent_events import sse_comment, sse_event
from webui_adapter.protocol.websocket_frames import PING, text_frame
from webui_adapter.session.batch import Batch, Delivery

WIRE = Path(__file__).parents[2] / "wire"


def golden(name: str) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads((WIRE / f"{name}.json").read_text())
    return cases


def by_name(case: dict[str, Any]) -> str:
    return str(case["name"])


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 70000])
def test_frame_headers_at_their_bounds(size: int) -> None:
    payload = b"x" * size
    assert text_frame(payload) == Frame(Opcode.TEXT, payload).serialize(mask=False)
    assert payloads_of(text_frame(payload)) == [payload]


def test_a_ping_is_an_empty_control_frame() -> None:
    assert Frame(Opcode.PING, b"").serialize(mask=False) == PING


@pytest.mark.parametrize("case", golden("words"), ids=by_name)
def test_golden_control_events(case: dict[str, Any]) -> None:
    parsed = case["parsed"]
    assert control_event(parsed["type"], parsed["data"], parsed["time"]) == case["frame"].encode()


@pytest.mark.parametrize("case", golden("publications"), ids=by_name)
def test_a_publication_becomes_its_events_untouched(case: dict[str, Any]) -> None:
    publication = parse_publication(case["publication"].encode())
    batch = Batch("user:42", publication.records)
    expected = [parsed["event"].encode() for parsed in case["parsed"]["records"]]
    assert payloads_of(batch.frames) == expected
    assert [delivery.record.event for delivery in batch.deliveries] == expected


@pytest.mark.parametrize("case", golden("events"), ids=by_name)
def test_golden_events_over_sse(case: dict[str, Any]) -> None:
    event = case["frame"].encode()
    head, data = sse_event(case["parsed"]["type"], event, {"user:42": Position("5f", 17)}).split(b"\ndata: ")
    assert head == f"id: user:42=5f.17\nevent: {case['parsed']['type']}".encode()
    assert data == event + b"\n\n"


@pytest.mark.parametrize("case", [case for case in golden("sse") if case["written_by_gateway"]], ids=by_name)
def test_golden_streams_are_of_our_writing(case: dict[str, Any]) -> None:
    """Put together from what the gateway writes, the golden chunk comes out."""
    written = b""
    for block in case["chunk"].removesuffix("\n\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if "retry" in fields:
            written += f"retry: {fields['retry']}\n".encode()
        if "data" in fields:
            cursor = parse_cursor(fields["id"]) if "id" in fields else None
            written += sse_event(fields["event"], fields["data"].encode(), cursor)
        elif block.startswith(":"):
            assert sse_comment().startswith(b":")
            assert sse_comment().endswith(b"\n\n")
            written += block.encode() + b"\n\n"
        else:
            written += block.encode() + b"\n\n"
    assert written == case["chunk"].encode()


def test_control_events_with_a_position_have_an_id() -> None:
    session = new_session(encoder=EVENT_STREAM)
    assert b"id:" not in EVENT_STREAM.control(session.output, "bus.position", {})
    from tests.webui_adapter.parts import history, join, settle  # noqa: PLC0415 - read next to its use
    from webui_adapter.channels.hub import Hub  # noqa: PLC0415

    hub = Hub()
    channel = join(hub, session)
    settle(hub, session, channel, history(3, record(3)))
    assert EVENT_STREAM.control(session.output, "bus.position", {}).startswith(
        b"id: user:42=e1.3\nevent: bus.position\n"
    )
    assert EVENT_STREAM.event(session.output, Delivery("user:42", record(3))).startswith(
        b"id: user:42=e1.3\nevent: a.b\n"
    )
    assert EVENT_STREAM.control(session.output, "bus.hello", {}).startswith(b"event: bus.hello\n")


def test_a_cursor_that_could_not_be_read_back_is_left_out() -> None:
    long = {f"collection:{i}{'x' * 100}": Position("5f", 1) for i in range(60)}
    assert sse_event("a.b", b"{}", long) == b"event: a.b\ndata: {}\n\n"
    assert sse_event("a.b", b"{}", {}) == b"event: a.b\ndata: {}\n\n"


LINE_BREAKS = "\r\n\x00\x0b\x0c\x1c\x85\u2028\u2029"


@given(st.text(alphabet=st.characters() | st.sampled_from(LINE_BREAKS)))
def test_nothing_that_passes_the_grammar_breaks_a_line(text: str) -> None:
    """Type, topic and channel are parts of lines of SSE and of records. The checks accept no line break."""
    for check in (lambda t: check_id(t, "x"), lambda t: check_topic(f"user:1:{t}")):
        try:
            passed = check(text)
        except ValueError:
            continue
        assert not re.search(r"[\s\x00-\x1f\x7f-\x9f]", passed)


@given(st.text())
def test_data_is_one_line_whatever_is_in_it(text: str) -> None:
    data = control_event("bus.error", {"message": text}, 1)
    stream = sse_event("bus.error", data, None)
    assert stream.count(b"\n") == 3
    assert b"\r" not in stream
    assert json.loads(stream.split(b"data: ")[1])["data"]["message"] == text


def test_close_codes_are_those_of_the_protocol() -> None:
    codes = {case["code"] for case in golden("closecodes")}
    assert {int(code) for code in CloseCode} <= codes
    for code in CloseCode:
        assert 4000 <= code < 4100 or 4100 <= code < 4200 or 4500 <= code < 4600
