"""The opening handshake (RFC 6455, section 4): the head of a request in, the answer out. No I/O.

It is strict where two readers could understand one head differently, for example a proxy and the gateway.
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
# Two values of these headers would contradict each other. The values of all others form one list.
_ONCE: Final = frozenset(
    {"authorization", "content-length", "host", "origin", "sec-websocket-key", "sec-websocket-version"}
)


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a GET request.

    Attributes:
        target: path and query, as the client sent them.
        headers: values by name, in lower case.
    """

    target: str
    headers: Mapping[str, str]

    @property
    def path(self) -> str:
        """The part of the target before the question mark."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """The part of the target after the question mark."""
        return self.target.partition("?")[2]

    def listed(self, name: str) -> list[str]:
        """Return the values of a header that is a list.

        Args:
            name: the header's name in lower case.
        """
        value = self.headers.get(name)
        return [part for part in map(str.strip, value.split(",")) if part] if value else []


def read_request(head: bytes) -> Request:
    """Read the head of a request.

    Args:
        head: the bytes before the empty line that ends the head.

    Returns:
        The request.

    Raises:
        RequestRefused: 400: the head is malformed.
    """
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
    """Collect headers into one mapping.

    Args:
        lines: names and values as the client sent them.

    Returns:
        Values by name in lower case.

    Raises:
        RequestRefused: 400: a header is malformed, or occurs twice and must not.
    """
    headers: dict[str, str] = {}
    for given, padded in lines:
        name, value = given.lower(), padded.strip(" \t")
        if not _NAME.fullmatch(name) or _BREAK.search(value):
            raise RequestRefused(400, "bad_request", "a header must read name: value, in one line")
        known = headers.get(name)
        if known is not None:
            if name in _ONCE:
                raise RequestRefused(400, "bad_request", f"the header {name} must occur once")
            headers[name] = f"{known}; {value}" if name == "cookie" else f"{known}, {value}"
        else:
            headers[name] = value
    return headers


def is_upgrade(request: Request) -> bool:
    """Return whether a request asks for a WebSocket.

    Args:
        request: the head of the request.
    """
    return "websocket" in request.headers.get("upgrade", "").lower() and any(
        token.lower() == "upgrade" for token in request.listed("connection")
    )


def check_upgrade(request: Request) -> str:
    """Check a handshake.

    Args:
        request: the head of the request.

    Returns:
        The value of ``Sec-WebSocket-Key``.

    Raises:
        RequestRefused: 400 or 426.
    """
    headers = request.headers
    if headers.get("sec-websocket-version") != _VERSION:
        raise RequestRefused(
            426, "bad_request", "only WebSocket version 13 is supported", {"Sec-WebSocket-Version": _VERSION}
        )
    key = headers.get("sec-websocket-key", "")
    if not _KEY.fullmatch(key):
        raise RequestRefused(400, "bad_request", "Sec-WebSocket-Key must be 16 bytes in base64")
    if "host" not in headers:
        raise RequestRefused(400, "bad_request", "the header Host is missing")
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise RequestRefused(400, "bad_request", "a handshake has no body")
    return key


def acceptance(key: str, subprotocol: str | None) -> bytes:
    """Encode the answer that opens the connection, without extensions: sessions cannot share compressed frames.

    Args:
        key: the value of ``Sec-WebSocket-Key``.
        subprotocol: the subprotocol to answer with, or None.

    Returns:
        The head of the answer.
    """
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    chosen = "" if subprotocol is None else f"Sec-WebSocket-Protocol: {subprotocol}\r\n"
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}\r\n{chosen}\r\n"
    ).encode("latin-1")


def refusal(error: RequestRefused) -> bytes:
    """Encode the answer to a refused request.

    Args:
        error: the refusal.

    Returns:
        The whole answer.
    """
    body = json.dumps(error.data()).encode()
    more = "".join(f"{name}: {value}\r\n" for name, value in error.headers.items())
    head = (
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\nDate: {formatdate(usegmt=True)}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n{more}Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + body
