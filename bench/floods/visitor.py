"""The process of an honest user: ``python -m bench.floods.visitor PORT TOKEN``.

It reads a number of seconds. Meanwhile one connection sends a command every 20 ms and waits for its answer, and another
one is opened four times a second. It replies with the durations.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time

from bench.floods.sockets import PONG, TEXT, connect, frame, handshake, refused

__all__ = ["SOURCE"]

SOURCE = "127.0.0.1"
_PACE = 0.02
_OPEN_PACE = 0.25
_SERVER_PING = b"\x89\x00"


def answers(peer: socket.socket, until: float) -> list[float]:
    """The duration of each answer in milliseconds. A late answer delays the next command."""
    found: list[float] = []
    number, due = 0, time.monotonic()
    while (began := time.monotonic()) < until:
        number += 1
        peer.sendall(frame(TEXT, b'{"do":"ping","ref":"r%d."}' % number))
        expected, heard = b'"r%d."' % number, b""
        while expected not in heard:
            data = peer.recv(65_536)
            if not data:
                raise EOFError("the gateway has closed the connection of the honest user")
            if _SERVER_PING in data:
                peer.sendall(frame(PONG))
            heard = heard[-64:] + data
        found.append((time.monotonic() - began) * 1000)
        due = max(due + _PACE, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
    return found


def opens(port: int, token: str, until: float) -> list[float | None]:
    """The duration of each handshake in milliseconds; None: it failed."""
    found: list[float | None] = []
    while (began := time.monotonic()) < until:
        try:
            with connect(port, SOURCE, 5) as peer:
                peer.sendall(handshake(token))
                found.append(None if refused(peer.recv(4096)) else (time.monotonic() - began) * 1000)
        except OSError:
            found.append(None)
        time.sleep(max(0.0, began + _OPEN_PACE - time.monotonic()))
    return found


def main(port: int, token: str) -> None:
    peer = connect(port, SOURCE, 60)
    peer.sendall(handshake(token))
    while b"bus.position" not in peer.recv(65_536):
        pass
    for line in sys.stdin:
        until = time.monotonic() + float(line)
        opened: list[float | None] = []
        thread = threading.Thread(target=lambda: opened.extend(opens(port, token, until)))  # noqa: B023 - joined here
        thread.start()
        found = answers(peer, until)
        thread.join()
        print(json.dumps({"answers": found, "opens": opened}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
