"""The interface between the harness and a contender, a :class:`Contender`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol

__all__ = ["DEFAULT_EVENT_BYTES", "SECRET", "Command", "Contender", "Emission", "Emitter", "Launch", "Publisher"]

DEFAULT_EVENT_BYTES: Final = 235  # size of an event as JSON
SECRET: Final = "a secret of the benchmark, of 32 bytes or more"


class Emission(NamedTuple):
    """One event to publish, to `user` or to all users (None).

    `seq` counts from 0 for each receiver. `at` is the scheduled time in microseconds since 1970.
    """

    user: str | None
    seq: int
    at: int


class Publisher(Protocol):
    """Publishes as fast as the contender's interface allows, so that the server is the limit."""

    def publish(self, batch: Sequence[Emission]) -> None:
        """Publish the batch."""


class Emitter(Protocol):
    """Emits one event at a time, as an application does."""

    def emit(self, emission: Emission) -> None:
        """Emit to one user. The benchmark measures the duration of this call."""

    def wait(self, outstanding: int) -> None:
        """Wait until at most `outstanding` events are not in Redis. Returns immediately if `emit` waits itself."""


@dataclass(frozen=True, slots=True)
class Launch:
    """The parameters of a server. `event_bytes` is the size of an event as JSON."""

    port: int
    redis_url: str
    connections: int
    progress: Path
    event_bytes: int = DEFAULT_EVENT_BYTES


@dataclass(frozen=True, slots=True)
class Command:
    """The command that starts a server in the foreground. `env` is added to the environment."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Contender:
    """A server under test.

    Attributes:
        name: the name on the command line and in results.
        title: the name in tables.
        dialect: the protocol that the load generator uses.
        path: the path of the WebSocket.
        command: returns the command that starts the server.
        publisher: creates a publisher for a Redis URL; None if the server publishes itself (the floor).
        emitter: creates an emitter for a Redis URL; None if `emit` is not measured.
        ready_path: returns status 200 when the server is ready; None: ready when it accepts connections.
        cases: the cases to measure; None: all.
    """

    name: str
    title: str
    dialect: Literal["eventbus", "plain", "socketio"]
    path: str
    command: Callable[[Launch], Command]
    publisher: Callable[[str], Publisher] | None
    emitter: Callable[[str], Emitter] | None = None
    ready_path: str | None = None
    cases: frozenset[str] | None = None
