"""The opening handshake's bytes: a request's head in, an answer out."""

from __future__ import annotations

import json

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Request as TheirRequest
from websockets.server import ServerProtocol

from webui_adapter.errors import RequestRefused
from webui_adapter.protocol.websocket_handshake import acceptance, check_upgrade, is_upgrade, read_request, refusal

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
GOOD = (
    ("Host", "gateway.example"),
    ("Upgrade", "websocket"),
    ("Connection", "keep-alive, Upgrade"),
    ("Sec-WebSocket-Key", KEY),
    ("Sec-WebSocket-Version", "13"),
)


def head(*headers: tuple[str, str], first: str = "GET /eventbus/ws?cursor=system=0 HTTP/1.1") -> bytes:
    return "\r\n".join([first, *(f"{name}: {value}" for name, value in headers)]).encode("latin-1")


def without(name: str) -> list[tuple[str, str]]:
    return [header for header in GOOD if header[0] != name]


def status_of(data: bytes) -> int:
    with pytest.raises(RequestRefused) as refused:
        check_upgrade(read_request(data))
    return refused.value.status


def test_a_handshake_of_a_browser() -> None:
    request = read_request(head(*GOOD, ("Sec-WebSocket-Protocol", "eventbus.v1, access_token.x.y.z")))
    assert (request.path, request.query) == ("/eventbus/ws", "cursor=system=0")
    assert is_upgrade(request)
    assert check_upgrade(request) == KEY
    assert request.listed("sec-websocket-protocol") == ["eventbus.v1", "access_token.x.y.z"]


def test_the_answer_is_the_one_of_another_implementation() -> None:
    theirs = ServerProtocol().accept(TheirRequest("/", Headers(GOOD)))
    answer = acceptance(KEY, None).decode()
    assert answer.startswith("HTTP/1.1 101 ")
    assert f"Sec-WebSocket-Accept: {theirs.headers['Sec-WebSocket-Accept']}\r\n" in answer
    assert answer.endswith("\r\n\r\n")
    assert "Sec-WebSocket-Protocol: eventbus.v1\r\n" in acceptance(KEY, "eventbus.v1").decode()


@pytest.mark.parametrize(
    "headers", [without("Upgrade"), without("Connection"), [*without("Connection"), ("Connection", "keep-alive")]]
)
def test_an_ordinary_request_is_none(headers: list[tuple[str, str]]) -> None:
    assert not is_upgrade(read_request(head(*headers)))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (without("Sec-WebSocket-Key"), 400),
        ([*without("Sec-WebSocket-Key"), ("Sec-WebSocket-Key", "c2hvcnQ=")], 400),
        ([*without("Sec-WebSocket-Key"), ("Sec-WebSocket-Key", "!" * 22 + "==")], 400),
        (without("Sec-WebSocket-Version"), 426),
        ([*without("Sec-WebSocket-Version"), ("Sec-WebSocket-Version", "8")], 426),
        (without("Host"), 400),
        ([*GOOD, ("Content-Length", "5")], 400),
        ([*GOOD, ("Transfer-Encoding", "chunked")], 400),
        ([*GOOD, ("Host", "another.example")], 400),
        ([*GOOD, ("Origin", "https://a.example"), ("origin", "https://b.example")], 400),
        ([*GOOD, ("Authorization", "Bearer a"), ("Authorization", "Bearer b")], 400),
        ([*GOOD, ("Sec-WebSocket-Key", KEY)], 400),
        ([*GOOD, ("X Y", "1")], 400),
        ([*GOOD, ("", "1")], 400),
        ([*GOOD, ("X", "a\nb")], 400),
        ([*GOOD, ("X", "a\0b")], 400),
    ],
)
def test_what_is_not_in_order(headers: list[tuple[str, str]], status: int) -> None:
    assert status_of(head(*headers)) == status


@pytest.mark.parametrize(
    "first", ["POST /ws HTTP/1.1", "GET /ws HTTP/1.0", "GET /ws", "GET  HTTP/1.1", "GET /w s HTTP/1.1", "", "\0"]
)
def test_request_lines_that_are_none(first: str) -> None:
    assert status_of(head(*GOOD, first=first)) == 400


def test_a_header_in_two_lines_is_refused() -> None:
    assert status_of(head(*GOOD) + b"\r\nX: a\r\n folded") == 400
    assert status_of(head(*GOOD) + b"\r\nno colon") == 400


def test_lists_and_cookies_that_come_in_parts_are_one() -> None:
    request = read_request(head(("A", " 1 "), ("a", "2"), ("Cookie", "x=1"), ("cookie", "y=2"), ("B", "\tpadded \t")))
    assert request.headers == {"a": "1, 2", "cookie": "x=1; y=2", "b": "padded"}


def test_a_refusal_is_a_whole_answer() -> None:
    answer = refusal(RequestRefused(503, "unavailable", "full: ü", {"Retry-After": "1"}))
    lines, _, body = answer.partition(b"\r\n\r\n")
    assert lines.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nRetry-After: 1\r\n" in lines
    assert b"\r\nConnection: close" in lines
    assert f"Content-Length: {len(body)}".encode() in lines
    assert json.loads(body) == {"code": "unavailable", "message": "full: ü"}
