"""The process that floods: ``python -m bench.floods.attacker KIND PORT TOKEN``.

It reads a number of seconds, floods for so long, and replies with what it did. It opens a connection again as soon as
the gateway closes it.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import sys
import time
from collections.abc import Callable

from bench.floods.sockets import PATH, PING, PONG, TEXT, connect, frame, handshake, refused

__all__ = ["CONTROL", "FLOODS", "SOURCE"]

SOURCE = "127.0.0.2"
CONTROL = "busy"
_CHUNK = 65_536
# Sizes of texts that never end: far above what a connection may send before its token, and as much as it may.
_LARGE = 15_000_000
_PERMITTED = 32_000


class Attacker:
    """Connections from one address."""

    def __init__(self, port: int, token: str) -> None:
        self.port = port
        self.token = token
        self.opened = self.refused = self.sent = 0
        self.held: list[socket.socket] = []

    def open(self) -> socket.socket | None:
        """Open a WebSocket; None if the gateway refuses."""
        with contextlib.suppress(OSError):
            peer = connect(self.port, SOURCE)
            peer.sendall(handshake(self.token))
            if not refused(peer.recv(4096)):
                self.opened += 1
                peer.setblocking(False)
                return peer
            peer.close()
        self.refused += 1
        return None

    def send_all_it_takes(self, peer: socket.socket, data: bytes) -> bool:
        """Send until the socket is full, and read nothing. Returns False at the end of the connection."""
        with contextlib.suppress(BlockingIOError):
            try:
                self.sent += peer.send(data)
            except OSError as error:
                if isinstance(error, BlockingIOError):
                    raise
                peer.close()
                return False
        return True

    def purge(self) -> None:
        """Forget the connections that the gateway has ended."""
        readable = select.select(self.held, [], [], 0)[0] if len(self.held) < 900 else _readable(self.held)
        for peer in readable:
            with contextlib.suppress(BlockingIOError):
                try:
                    ended = not peer.recv(4096)
                except ConnectionError:
                    ended = True
                if ended:
                    peer.close()
                    self.held.remove(peer)


def _readable(peers: list[socket.socket]) -> list[socket.socket]:
    poll = select.poll()
    by_number = {peer.fileno(): peer for peer in peers}
    for number in by_number:
        poll.register(number, select.POLLIN)
    return [by_number[number] for number, _ in poll.poll(0)]


def frames(data: bytes, first: bytes = b"") -> Callable[[Attacker, float], None]:
    """One connection that sends frames as fast as the gateway takes them."""
    chunk = data * max(1, _CHUNK // len(data))

    def flood(attacker: Attacker, until: float) -> None:
        while time.monotonic() < until:
            peer = attacker.open()
            if peer is None:
                time.sleep(0.01)
                continue
            alive = not first or attacker.send_all_it_takes(peer, first)
            while alive and time.monotonic() < until:
                if select.select([], [peer], [], 0.05)[1]:
                    alive = attacker.send_all_it_takes(peer, chunk)
            peer.close()

    return flood


def opens(number: int, rate: float) -> Callable[[Attacker, float], None]:
    """Connections without any frame: at most ``number`` open ones, and ``rate`` new ones a second."""

    def flood(attacker: Attacker, until: float) -> None:
        began, tried = time.monotonic(), 0
        while (now := time.monotonic()) < until:
            attacker.purge()
            while len(attacker.held) < number and tried < (now - began) * rate + 1 and time.monotonic() < until:
                tried += 1
                peer = attacker.open()
                if peer is not None:
                    attacker.held.append(peer)
            time.sleep(0.005)

    return flood


def slow_heads(attacker: Attacker, until: float) -> None:
    """A thousand requests whose heads come byte by byte."""
    begun = f"GET {PATH}?".encode()
    while time.monotonic() < until:
        attacker.purge()
        while len(attacker.held) < 1_000 and time.monotonic() < until:
            try:
                peer = connect(attacker.port, SOURCE)
            except OSError:
                break
            attacker.opened += 1
            peer.setblocking(False)
            attacker.held.append(peer)
            attacker.send_all_it_takes(peer, begun)
        for peer in list(attacker.held):
            if not attacker.send_all_it_takes(peer, b"x"):
                attacker.held.remove(peer)
        time.sleep(0.5)


def unfinished(size: int) -> Callable[[Attacker, float], None]:
    """Texts that never end, in 500 connections."""
    text = frame(TEXT, b"x" * size)[:-1]
    begun, more = text[:_CHUNK], text[_CHUNK:]

    def flood(attacker: Attacker, until: float) -> None:
        while time.monotonic() < until:
            attacker.purge()
            while len(attacker.held) < 500 and time.monotonic() < until:
                peer = attacker.open()
                if peer is None:
                    break
                attacker.held.append(peer)
                attacker.send_all_it_takes(peer, begun)
            for peer in list(attacker.held if more else ()):
                if not attacker.send_all_it_takes(peer, more[:_CHUNK]):
                    attacker.held.remove(peer)
            time.sleep(0.01)

    return flood


def busy(share: float) -> Callable[[Attacker, float], None]:
    """Takes a share of a core and sends nothing."""

    def flood(_: Attacker, until: float) -> None:
        while (now := time.monotonic()) < until:
            while time.monotonic() < now + 0.02 * share:
                pass
            time.sleep(0.02 * (1 - min(share, 1.0)))

    return flood


FLOODS: dict[str, Callable[[Attacker, float], None]] = {
    "empty pongs": frames(frame(PONG)),
    "pings": frames(frame(PING)),
    "empty fragments": frames(frame(0, final=False), frame(TEXT, final=False)),
    "bytes": frames(frame(TEXT, b"x" * 30_000)),
    "1,000 handshakes": opens(1_000, 1_000_000),
    "100 opens a second": opens(1_000_000, 100),
    "slow heads": slow_heads,
    "large unfinished texts": unfinished(_LARGE),
    "permitted unfinished texts": unfinished(_PERMITTED),
}


def main(kind: str, port: int, token: str) -> None:
    for line in sys.stdin:
        seconds, share = map(float, line.split())
        attacker = Attacker(port, token)
        flood = busy(share) if kind == CONTROL else FLOODS[kind]
        flood(attacker, time.monotonic() + seconds)
        for peer in attacker.held:
            peer.close()
        reply = {"opened": attacker.opened, "refused": attacker.refused, "sent": attacker.sent}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "")
