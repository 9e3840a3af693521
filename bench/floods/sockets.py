"""WebSockets of bytes, from a chosen address of this machine."""

from __future__ import annotations

import socket
import struct

__all__ = ["PATH", "PING", "PONG", "TEXT", "bearer", "connect", "frame", "handshake", "refused"]

PATH = "/eventbus/ws"
CONTINUATION, TEXT, PING, PONG = 0, 1, 9, 10


def bearer(token: str) -> str:
    return f"Authorization: Bearer {token}\r\n" if token else ""


def frame(opcode: int, payload: bytes = b"", *, final: bool = True) -> bytes:
    """A client's frame, with a mask of zeros."""
    first, size = opcode | (0x80 if final else 0), len(payload)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 65536:
        head = bytes((first, 0xFE)) + struct.pack("!H", size)
    else:
        head = bytes((first, 0xFF)) + struct.pack("!Q", size)
    return head + b"\0\0\0\0" + payload


def handshake(token: str) -> bytes:
    lines = [
        f"GET {PATH} HTTP/1.1",
        "Host: 127.0.0.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    ]
    return ("\r\n".join(lines) + "\r\n" + bearer(token) + "\r\n").encode()


def connect(port: int, source: str, seconds: float = 10.0) -> socket.socket:
    """A connection from an address of this machine."""
    return socket.create_connection(("127.0.0.1", port), seconds, (source, 0))


def refused(head: bytes) -> bool:
    """Whether the answer to a handshake is not 101."""
    return not head.startswith(b"HTTP/1.1 101")
