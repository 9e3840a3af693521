"""A proxy between a gateway and Redis that passes everything, until it has to swallow publications."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from eventbus.backends.redis.connections.resp import pack
from tests.conftest import RedisServer

HEAD = b"*3\r\n$7\r\nmessage\r\n"


class Proxy(socketserver.ThreadingTCPServer):
    """Replies and pongs always pass.

    Attributes:
        swallow: what a pub/sub channel's name must contain for its messages to be dropped; None: nothing is.
        swallowed: how many were.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, server: RedisServer) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.upstream = ("127.0.0.1", server.port)
        self.swallow: bytes | None = None
        self.swallowed = 0
        self.subscriber: socket.socket | None = None

    def command_of_the_subscriber(self, *command: str) -> None:
        """Send a command on the gateway's own connection, as if it came from there."""
        assert self.subscriber is not None
        self.subscriber.sendall(pack(command))

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.server_address[1]}/0"

    def handle_error(self, *_: object) -> None:
        """A connection that breaks off is what these tests are about."""

    def sift(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the part of ``data`` that passes, and the incomplete rest."""
        passed = b""
        while True:
            start = data.find(HEAD)
            if start < 0:
                # Pushes are whole replies: nothing else begins in the middle of a read that ends with a line.
                return passed + data, b""
            parts = _parts(data[start + len(HEAD) :])
            passed += data[:start]
            if parts is None:
                return passed, data[start:]
            channel, size = parts
            message, data = data[start : start + len(HEAD) + size], data[start + len(HEAD) + size :]
            if self.swallow is not None and self.swallow in channel:
                self.swallowed += 1
            else:
                passed += message


def _parts(data: bytes) -> tuple[bytes, int] | None:
    """The name of the pub/sub channel and the size of what follows the head; None if that is not whole."""
    texts, at = [], 0
    for _ in range(2):
        end = data.find(b"\r\n", at)
        if end < 0:
            return None
        size = int(data[at + 1 : end])
        texts.append(data[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
        if len(data) < at:
            return None
    return texts[0], at


class _Connection(socketserver.BaseRequestHandler):
    server: Proxy

    def handle(self) -> None:
        with socket.create_connection(self.server.upstream) as upstream:
            back = threading.Thread(target=self._back, args=(upstream,), daemon=True)
            back.start()
            with suppress(OSError):
                while data := self.request.recv(65536):
                    upstream.sendall(data)
                    if b"\r\nSUBSCRIBE\r\n" in data:
                        self.server.subscriber = upstream
            with suppress(OSError):
                upstream.shutdown(socket.SHUT_RDWR)
            back.join()

    def _back(self, upstream: socket.socket) -> None:
        rest = b""
        with suppress(OSError):
            while data := upstream.recv(65536):
                passed, rest = self.server.sift(rest + data)
                self.request.sendall(passed)
        with suppress(OSError):
            self.request.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxied(server: RedisServer) -> Iterator[Proxy]:
    with Proxy(server) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
