"""The place of a worker process among its siblings, as the supervisor hands it over."""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["WorkerPlace", "family_of", "share_port"]


def family_of(host: str) -> socket.AddressFamily:
    """Return the address family of an address to listen on.

    Args:
        host: the address.
    """
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def share_port(listener: socket.socket) -> None:
    """Let other sockets of this user have the same port.

    Args:
        listener: a socket that is not bound yet.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """The place of one worker process.

    Attributes:
        number: 1 for the first worker.
        count: number of workers.
        host: address to listen on.
        port: port to listen on, the same for all workers.
        lifeline: file descriptor of a pipe that ends with the supervisor.
        folder: the folder of the Unix sockets through which the workers ask each other.
    """

    number: int
    count: int
    host: str
    port: int
    lifeline: int
    folder: str

    @property
    def text(self) -> str:
        """The place as text, for the command line."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> WorkerPlace:
        """Read a place.

        Args:
            text: as ``text`` wrote it.

        Returns:
            The place.
        """
        return cls(**json.loads(text))

    def listen(self) -> socket.socket:
        """Return a socket on the workers' port. The kernel spreads the connections among those that listen."""
        listener = socket.socket(family_of(self.host), socket.SOCK_STREAM)
        share_port(listener)
        listener.bind((self.host, self.port))
        return listener

    def socket_of(self, number: int) -> Path:
        """Return the Unix socket of a worker.

        Args:
            number: the worker's number.
        """
        return Path(self.folder) / f"{number}.sock"

    @property
    def siblings(self) -> range:
        """The numbers of all workers, with this one."""
        return range(1, self.count + 1)
