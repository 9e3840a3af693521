"""Requests and frames as bytes, for the stand-alone gateway."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from tests.webui_adapter.gateways import GatewayProcess, RawWebSocket, token

__all__ = ["answer", "code", "connected", "heard", "request"]


def code(number: int) -> bytes:
    return number.to_bytes(2, "big")


@contextlib.contextmanager
def connected(gateway: GatewayProcess, user: str | None = None) -> Iterator[RawWebSocket]:
    """A connection whose handshake is over; with a user it brings a token."""
    headers = f"Authorization: Bearer {token(user)}\r\n" if user is not None else ""
    raw = RawWebSocket(gateway, headers)
    head = raw.head()
    assert head.startswith("HTTP/1.1 101")
    assert "\r\ndate:" not in head.lower(), "uvicorn's way has one: this is not ours"
    try:
        yield raw
    finally:
        raw.close()


def heard(raw: RawWebSocket) -> list[tuple[int, bytes]]:
    """Every frame up to the end of the connection, which has to come without a reset."""
    frames = []
    with contextlib.suppress(EOFError):
        while True:
            frames.append(raw.frame())
    return frames


def answer(gateway: GatewayProcess, *parts: bytes) -> bytes:
    """Send bytes, and return the answer until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as peer:
        for part in parts:
            peer.sendall(part)
        said = b""
        with contextlib.suppress(ConnectionResetError):
            while data := peer.recv(65536):
                said += data
        return said


def request(gateway: GatewayProcess, *headers: str, path: str = "/ws") -> bytes:
    lines = [
        f"GET {gateway.prefix}{path} HTTP/1.1",
        "Host: x",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode()
