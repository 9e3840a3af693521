"""The opening handshake (RFC 6455, section 4): a request's head in, our answer out. No I/O.

Strict where leniency would let two readers of one head understand different things, as a proxy in front of us might.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from webui_adapter.errors import RequestRefused

__all__ = ["Request", "acceptance", "check_upgrade", "headers_of", "is_upgrade", "read_request", "refusal"]

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_BREAK: Final = re.compile(r"[\0\r\n]")
_KEY: Final = re.compile(r"[A-Za-z0-9+/]{22}==")
_VERSION: Final = "13"
# Of these a second one would be a second opinion; of all others the values make one list.
_ONCE: Final = frozenset(
    {"authorization", "content-length", "host", "origin", "sec-websocket-key", "sec-websocket-version"}
)


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a GET request.

    Attributes:
        target: path and query, as they came.
        headers: by name in lower case.
    """

    target: str
    headers: Mapping[str, str]

    @property
    def path(self) -> str:
        """What stands before the question mark."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """What stands behind it."""
        return self.target.partition("?")[2]

    def listed(self, name: str) -> list[str]:
        """The values of a header that is a list."""
        value = self.headers.get(name)
        return [part for part in map(str.strip, value.split(",")) if part] if value else []


def read_request(head: bytes) -> Request:
    """Read a head without the empty line that ends it. Raises RequestRefused (400)."""
    first, *lines = head.decode("latin-1").split("\r\n")
    method, _, rest = first.partition(" ")
    target, _, version = rest.rpartition(" ")
    if method != "GET" or not target or " " in target or version != "HTTP/1.1":
        raise RequestRefused(400, "bad_request", "the request line must read: GET path HTTP/1.1")
    return Request(target, headers_of(_named(line) for line in lines))


def _named(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name, value


def headers_of(lines: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    """Names and values, as they came, as one mapping. Raises RequestRefused (400)."""
    headers: dict[str, str] = {}
    for given, padded in lines:
        name, value = given.lower(), padded.strip(" \t")
        if not _NAME.fullmatch(name) or _BREAK.search(value):
            raise RequestRefused(400, "bad_request", "a header must read name: value, in one line")
        known = headers.get(name)
        if known is not None:
            if name in _ONCE:
                raise RequestRefused(400, "bad_request", f"the header {name} must stand there once")
            headers[name] = f"{known}; {value}" if name == "cookie" else f"{known}, {value}"
        else:
            headers[name] = value
    return headers


def is_upgrade(request: Request) -> bool:
    """Whether somebody wants to speak WebSocket; else it is an ordinary request for this path."""
    return "websocket" in request.headers.get("upgrade", "").lower() and any(
        token.lower() == "upgrade" for token in request.listed("connection")
    )


def check_upgrade(request: Request) -> str:
    """The key of a handshake that is in order. Raises RequestRefused (400, 426)."""
    headers = request.headers
    if headers.get("sec-websocket-version") != _VERSION:
        raise RequestRefused(426, "bad_request", "version 13 is spoken here", {"Sec-WebSocket-Version": _VERSION})
    key = headers.get("sec-websocket-key", "")
    if not _KEY.fullmatch(key):
        raise RequestRefused(400, "bad_request", "Sec-WebSocket-Key must be 16 bytes in base64")
    if "host" not in headers:
        raise RequestRefused(400, "bad_request", "the header Host is missing")
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise RequestRefused(400, "bad_request", "a handshake has no body")
    return key


def acceptance(key: str, subprotocol: str | None) -> bytes:
    """The answer that opens the connection. No extension is agreed on: compressed frames could not be shared."""
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    chosen = "" if subprotocol is None else f"Sec-WebSocket-Protocol: {subprotocol}\r\n"
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}\r\n{chosen}\r\n"
    ).encode("latin-1")


def refusal(error: RequestRefused) -> bytes:
    """The answer that does not."""
    body = json.dumps(error.data()).encode()
    more = "".join(f"{name}: {value}\r\n" for name, value in error.headers.items())
    head = (
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\nDate: {formatdate(usegmt=True)}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{more}Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + body
