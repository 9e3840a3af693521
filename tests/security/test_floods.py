"""One connection cannot stop a gateway: what it sends is counted, held back, and ended with 4502."""

from __future__ import annotations

import contextlib
import json

import pytest

from tests.conftest import wait_until
from tests.webui_adapter.gateways import GatewayProcess, RawWebSocket, token
from tests.webui_adapter.protocol.test_websocket_parser import CLOSE, PING, PONG, TEXT, frame
from webui_adapter.access.inbound_limit import InboundLimit
from webui_adapter.protocol.websocket_parser import PongFrame, read_frames
from webui_adapter.settings import GatewaySettings

CONTINUATION = 0
FLOODS = {
    # Less than the bytes that may wait before the token.
    "pong": frame(PONG) * 4_000,
    "ping": frame(PING) * 4_000,
    "empty fragments": frame(TEXT, final=False) + frame(CONTINUATION, final=False) * 4_000,
    "one-byte fragments": frame(TEXT, b"x", final=False) + frame(CONTINUATION, b"x", final=False) * 4_000,
}
BYTES = frame(PING, b"x" * 125) * 6_000


def bearer(user: str) -> str:
    return f"Authorization: Bearer {token(user)}\r\n"


def close_code(raw: RawWebSocket) -> int:
    """The code of the close frame; all before it is read."""
    while True:
        opcode, payload = raw.frame()
        if opcode == CLOSE:
            return int.from_bytes(payload[:2], "big")


def flood(raw: RawWebSocket, data: bytes) -> int:
    """Send as much of the data as the gateway takes, and return the close code."""
    raw.head()
    with contextlib.suppress(ConnectionError, TimeoutError):
        raw.socket.sendall(data)
    return close_code(raw)


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_without_a_token_is_held_back_and_ended(bounded: GatewayProcess, kind: str) -> None:
    before = bounded.metrics().get('eventbus_refused_total{reason="frames"}', 0)
    raw = RawWebSocket(bounded)
    assert flood(raw, FLOODS[kind]) == 4502
    raw.close()
    metrics = bounded.metrics()
    assert metrics['eventbus_refused_total{reason="frames"}'] == before + 1
    assert metrics['eventbus_reads_paused_total{reason="frames"}'] > 0
    wait_until(lambda: bounded.metrics()["eventbus_connections"] == 0, "it to be gone")


def test_a_flood_with_a_token_is_ended_too(bounded: GatewayProcess, user: str) -> None:
    raw = RawWebSocket(bounded, bearer(user))
    assert flood(raw, FLOODS["pong"]) == 4502
    raw.close()


def test_bytes_are_counted_too(bounded: GatewayProcess, user: str) -> None:
    before = bounded.metrics().get('eventbus_refused_total{reason="bytes"}', 0)
    raw = RawWebSocket(bounded, bearer(user))
    raw.head()
    message = frame(TEXT, b"x" * 60_000)
    with contextlib.suppress(ConnectionError, TimeoutError):
        raw.socket.sendall(message * 12)
    assert close_code(raw) == 4502
    raw.close()
    assert bounded.metrics()['eventbus_refused_total{reason="bytes"}'] == before + 1


def test_a_burst_within_the_rate_is_served_whole(bounded: GatewayProcess, user: str) -> None:
    """More frames than one turn parses: the rest waits for its turn, and none is lost or repeated."""
    raw = RawWebSocket(bounded, bearer(user))
    raw.head()
    raw.socket.sendall(b"".join(frame(PING, str(n).encode()) for n in range(170)))
    pongs: list[int] = []
    while len(pongs) < 170:
        opcode, payload = raw.frame()
        if opcode == PONG:
            pongs.append(int(payload))
    assert pongs == list(range(170))
    raw.send(TEXT, json.dumps({"do": "ping", "ref": "after"}).encode())
    while b'"after"' not in raw.frame()[1]:
        pass
    raw.close()


def test_a_pause_loses_nothing(bounded: GatewayProcess, user: str) -> None:
    raw = RawWebSocket(bounded, bearer(user))
    raw.head()
    raw.socket.sendall(b"".join(frame(PING, str(n).encode()) for n in range(430)))
    pongs: list[int] = []
    while len(pongs) < 430:
        opcode, payload = raw.frame()
        if opcode == PONG:
            pongs.append(int(payload))
    assert pongs == list(range(430))
    raw.close()


def test_nothing_is_parsed_after_the_close_was_sent(bounded: GatewayProcess) -> None:
    """Pings behind the flood have no answer: they were not read."""
    raw = RawWebSocket(bounded)
    assert flood(raw, FLOODS["pong"] + frame(PING, b"late")) == 4502
    with contextlib.suppress(ConnectionError), pytest.raises(EOFError):
        raw.frame()
    raw.close()


def test_before_the_token_few_bytes_may_wait(bounded: GatewayProcess) -> None:
    before = bounded.metrics().get('eventbus_refused_total{reason="bytes"}', 0)
    raw = RawWebSocket(bounded)
    assert flood(raw, frame(PONG) * 20_000) == 4502
    raw.close()
    assert bounded.metrics()['eventbus_refused_total{reason="bytes"}'] == before + 1


def test_before_the_token_a_command_has_the_size_of_one_with_a_token(bounded: GatewayProcess, user: str) -> None:
    raw = RawWebSocket(bounded)
    raw.head()
    raw.socket.sendall(frame(TEXT, b" " * 32_769)[:1_000])
    assert close_code(raw) == 1009
    raw.close()
    raw = RawWebSocket(bounded)
    raw.head()
    raw.send(TEXT, json.dumps({"do": "auth", "token": token(user)}).encode() + b" " * 32_000)
    while b"bus.hello" not in raw.frame()[1]:
        pass
    raw.send(TEXT, b'{"do":"ping","ref":"large"}' + b" " * 65_000)
    while b'"large"' not in raw.frame()[1]:
        pass
    raw.close()


def test_a_close_within_a_message_is_in_order(bounded: GatewayProcess) -> None:
    """RFC 6455, section 5.4: control frames may come between the fragments of a message."""
    raw = RawWebSocket(bounded)
    raw.head()
    raw.socket.sendall(frame(TEXT, b"x", final=False) + frame(CLOSE, b"\x03\xe8") + frame(CONTINUATION, b"x"))
    assert close_code(raw) == 1000
    raw.close()


def settings(**changed: object) -> GatewaySettings:
    return GatewaySettings(jwt_secret="a secret of these tests, long enough", **changed)


def test_one_call_parses_a_bounded_number_of_frames() -> None:
    events, state, frames = read_frames(frame(PONG) * 10, None, 1000, most=4)
    assert (events, frames) == ([PongFrame()] * 4, 4)
    events, state, frames = read_frames(b"", state, 1000, most=4)
    assert (len(events), frames) == (4, 4)
    events, state, frames = read_frames(frame(PING, b"x")[:3], state, 1000, most=4)
    assert (len(events), frames) == (2, 2)
    events, state, frames = read_frames(frame(PING, b"x")[3:], state, 1000, most=4)
    assert (len(events), frames, state) == (1, 1, None)


def test_the_rates_rise_with_the_token() -> None:
    limit = InboundLimit(settings(unauthenticated_frame_rate_limit=10, frame_rate_limit=100), 0.0)
    assert limit.charge(10, 0, 0.0, known=False) == 0
    assert limit.charge(5, 0, 0.0, known=False) == 0.5
    assert limit.charge(100, 0, 0.0, known=True) == 0
    assert limit.charge(50, 0, 0.0, known=True) == 0.5


def test_who_exceeds_a_rate_for_too_long_is_exhausted_and_who_stops_is_not() -> None:
    limit = InboundLimit(settings(unauthenticated_frame_rate_limit=10, flood_patience=2), 0.0)
    limit.charge(20, 0, 0.0, known=False)
    assert not limit.exhausted(1.9)
    assert limit.exhausted(2.0)
    assert limit.charge(1, 0, 1.5, known=False) == 0
    assert not limit.exhausted(9.0)


def test_the_rate_that_was_exceeded_is_named() -> None:
    limit = InboundLimit(settings(unauthenticated_byte_rate_limit=1024), 0.0)
    assert limit.charge(1, 2048, 0.0, known=False) == 1
    assert limit.exceeded == "bytes"
