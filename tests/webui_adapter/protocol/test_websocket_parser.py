"""Reading what a browser sends: any frames, cut anywhere, under any mask; and everything that must not come."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import SERVER, Protocol, State

from webui_adapter.protocol.websocket_parser import (
    NO_CODE,
    Closing,
    Event,
    Message,
    PingFrame,
    PongFrame,
    Unfinished,
    Violation,
    read_frames,
)

LIMIT = 70_000


def frame(opcode: int, payload: bytes = b"", *, final: bool = True, mask: bytes = b"\x01\x80\xfe\x33") -> bytes:
    """A client's frame, made by hand."""
    size = len(payload)
    head = bytes((opcode | (0x80 if final else 0),))
    if size < 126:
        head += bytes((0x80 | size,))
    elif size < 65536:
        head += b"\xfe" + size.to_bytes(2, "big")
    else:
        head += b"\xff" + size.to_bytes(8, "big")
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def read(*chunks: bytes, limit: int = LIMIT) -> tuple[list[Event], Unfinished | None]:
    """Parse some chunks. The parser gives nothing after the last event."""
    events: list[Event] = []
    state: Unfinished | None = None
    for chunk in chunks:
        found, state, _ = read_frames(chunk, state, limit, most=1_000_000)
        events += found
        if events and isinstance(events[-1], Closing | Violation):
            break
    return events, state


def code_of(*chunks: bytes, limit: int = LIMIT) -> int:
    """The code with which the last chunk has to be answered."""
    last = read(*chunks, limit=limit)[0][-1]
    assert isinstance(last, Violation), last
    return last.code


# --- what is right ---------------------------------------------------------------------------------------------------

payloads = st.binary(max_size=300) | st.integers(0, 66_000).map(lambda size: b"x" * size)
texts = st.text(max_size=100)
masks = st.binary(min_size=4, max_size=4)
controls = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125))


@st.composite
def messages(draw: st.DrawFn) -> tuple[bytes, list[Event]]:
    """A message in fragments with control frames between them, and what should be read."""
    text = draw(st.booleans())
    whole = draw(texts).encode() if text else draw(payloads)
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=4)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    sent, expected = b"", []
    for number, piece in enumerate(pieces):
        opcode = (TEXT if text else BINARY) if number == 0 else 0
        sent += frame(opcode, piece, final=number == len(pieces) - 1, mask=draw(masks))
        if number < len(pieces) - 1:
            for control, payload in draw(st.lists(controls, max_size=2)):
                sent += frame(control, payload, mask=draw(masks))
                expected.append(PingFrame(payload) if control == PING else PongFrame())
    return sent, [*expected, Message(whole.decode() if text else whole)]


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    places = sorted(place % (len(data) + 1) for place in places)
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


@given(st.lists(messages(), max_size=4), st.lists(st.integers(0, 10**6), max_size=8))
def test_whatever_the_cuts_and_masks_the_same_is_read(sent: list[tuple[bytes, list[Event]]], places: list[int]) -> None:
    data = b"".join(part for part, _ in sent)
    expected = [event for _, events in sent for event in events]
    assert read(*cut(data, places)) == (expected, None)


@given(messages())
def test_byte_by_byte(sent: tuple[bytes, list[Event]]) -> None:
    data, expected = sent
    if len(data) < 2000:
        assert read(*(data[i : i + 1] for i in range(len(data)))) == (expected, None)


@given(st.lists(messages(), max_size=3))
def test_another_implementation_reads_the_same(sent: list[tuple[bytes, list[Event]]]) -> None:
    """The library websockets, as a server, from the same bytes."""
    data = b"".join(part for part, _ in sent)
    other = Protocol(SERVER, state=State.OPEN, max_size=LIMIT)
    other.receive_data(data)
    assert heard(other.events_received()) == read(data)[0]


def heard(frames: Sequence[object]) -> list[Event]:
    """Frames of websockets as events of ours."""
    events: list[Event] = []
    text, pieces = False, b""
    for found in frames:
        assert isinstance(found, Frame)
        match found.opcode:
            case Opcode.PING:
                events.append(PingFrame(bytes(found.data)))
            case Opcode.PONG:
                events.append(PongFrame())
            case opcode:
                text = opcode is Opcode.TEXT or (opcode is Opcode.CONT and text)
                pieces += found.data
                if found.fin:
                    events.append(Message(pieces.decode() if text else pieces))
                    pieces = b""
    return events


@given(st.binary(max_size=60))
def test_no_bytes_at_all_raise(noise: bytes) -> None:
    events, state = read(noise)
    again, state_of_one = read(*(noise[i : i + 1] for i in range(len(noise))))
    assert events == again, "what is wrong does not depend on how it came"
    assert (state is None) == (state_of_one is None)


def test_idle_is_nothing() -> None:
    assert read(frame(TEXT, b"{}")) == ([Message("{}")], None)
    assert read(frame(PONG)) == ([PongFrame()], None)
    assert read(b"") == ([], None)
    assert read(frame(PONG)[:3], frame(PONG)[3:]) == ([PongFrame()], None)
    _, state = read(frame(TEXT, b"{}")[:3])
    assert state is not None
    assert read(frame(TEXT, b"{}")[:3], frame(TEXT, b"{}")[3:]) == ([Message("{}")], None)


# --- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1014, 3000, 3999, 4999])
def test_codes_that_may_be_sent(code: int) -> None:
    assert read(frame(CLOSE, Close(code, "bye").serialize())) == ([Closing(code, "bye")], None)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_codes_that_may_not(code: int) -> None:
    assert code_of(frame(CLOSE, code.to_bytes(2, "big"))) == 1002


def test_a_close_without_a_code() -> None:
    assert read(frame(CLOSE)) == ([Closing(NO_CODE, "")], None)


def test_half_a_code_and_a_reason_that_is_no_text() -> None:
    assert code_of(frame(CLOSE, b"\x03")) == 1002
    assert code_of(frame(CLOSE, b"\x03\xe8\xff")) == 1007


def test_after_the_close_nothing_counts() -> None:
    """Autobahn's case 7.1.5: a fragment, a close, the rest of the message. The close is in order."""
    sent = frame(TEXT, b"frag", final=False) + frame(CLOSE, b"\x03\xe8") + frame(0, b"ment")
    assert read(sent) == ([Closing(1000, "")], None)


# --- what is wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    {
        "a frame without a mask": frame(TEXT, b"x")[:1] + b"\x01x",
        "reserved bit 1": bytes((0xC1, 0x80)) + b"mask",
        "reserved bit 2": bytes((0xA1, 0x80)) + b"mask",
        "reserved bit 3": bytes((0x91, 0x80)) + b"mask",
        "reserved data opcode": bytes((0x83, 0x80)) + b"mask",
        "reserved control opcode": bytes((0x8B, 0x80)) + b"mask",
        "a fragmented ping": frame(PING, final=False),
        "a fragmented close": frame(CLOSE, final=False),
        "a ping of 126 bytes": frame(PING, b"x" * 126),
        "a close of 126 bytes": frame(CLOSE, b"\x03\xe8" + b"x" * 124),
        "a continuation of nothing": frame(0, b"x"),
        "a continuation after the end": frame(TEXT, b"x") + frame(0, b"x"),
        "two messages interleaved": frame(TEXT, b"x", final=False) + frame(TEXT, b"x"),
        "a length of 2**63": bytes((0x81, 0xFF)) + b"\x80" + bytes(7) + b"mask",
    }.items(),
    ids=lambda case: case[0],
)
def test_violations(sent: tuple[str, bytes]) -> None:
    data = sent[1]
    assert code_of(data) == 1002
    assert code_of(*(data[i : i + 1] for i in range(len(data)))) == 1002
    other = Protocol(SERVER, state=State.OPEN, max_size=LIMIT)
    other.receive_data(data)
    assert other.close_sent is not None, "another implementation refuses it, too"


def test_what_came_before_a_violation_is_read() -> None:
    events, state = read(frame(TEXT, b"good") + frame(PING, b"p") + b"\xff")
    assert events[:2] == [Message("good"), PingFrame(b"p")]
    assert isinstance(events[2], Violation)
    assert state is None


def test_too_much() -> None:
    assert read(frame(TEXT, b"x" * 500), limit=500)[0] == [Message("x" * 500)]
    assert code_of(frame(TEXT, b"x" * 501), limit=500) == 1009
    assert code_of(frame(TEXT, b"x" * 501)[:4], limit=500) == 1009, "its length is enough"
    half = frame(TEXT, b"x" * 300, final=False)
    assert code_of(half, frame(0, b"x" * 201), limit=500) == 1009, "fragments count together"
    assert code_of(bytes((0x81, 0xFF)) + (2**40).to_bytes(8, "big"), limit=500) == 1009


def test_empty_fragments_without_end_take_no_memory() -> None:
    _, state = read(frame(TEXT, final=False), *[frame(0, final=False)] * 1000)
    assert state is not None
    assert state.fragments == []


def test_text_is_utf8() -> None:
    smile = "\U0001f600".encode()
    assert read(frame(TEXT, smile[:2], final=False), frame(0, smile[2:]))[0] == [Message("\U0001f600")]
    assert code_of(frame(TEXT, b"\xff")) == 1007
    assert code_of(frame(TEXT, b"\xed\xa0\x80")) == 1007, "a surrogate"
    assert code_of(frame(TEXT, smile[:3])) == 1007
    assert read(frame(BINARY, b"\xff"))[0] == [Message(b"\xff")]
