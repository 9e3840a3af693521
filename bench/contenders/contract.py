"""What the harness has to know of a contender. A contender fills in one :class:`Contender`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol

__all__ = ["DEFAULT_EVENT_BYTES", "SECRET", "Command", "Contender", "Emission", "Emitter", "Launch", "Publisher"]

DEFAULT_EVENT_BYTES: Final = 235  # of an event as JSON
SECRET: Final = "a secret of the benchmark, of 32 bytes or more"


class Emission(NamedTuple):
    """One event to publish: for `user`, or for everybody (None).

    `seq` counts from 0 for each receiver. `at` is when it was due, in microseconds since 1970.
    """

    user: str | None
    seq: int
    at: int


class Publisher(Protocol):
    """Publishes as fast as the contender's interface reasonably allows: the server has to be the limit."""

    def publish(self, batch: Sequence[Emission]) -> None:
        """Hand over all of the batch."""


class Emitter(Protocol):
    """Emits one event after the other, as an application does in the middle of its work."""

    def emit(self, emission: Emission) -> None:
        """Emit to one user. What is timed is the caller's time in here."""

    def wait(self, outstanding: int) -> None:
        """Return once at most `outstanding` emitted events are not in Redis yet; at once where `emit` itself waits."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What a server is told when it starts. `event_bytes`: size of an event as JSON."""

    port: int
    redis_url: str
    connections: int
    progress: Path
    event_bytes: int = DEFAULT_EVENT_BYTES


@dataclass(frozen=True, slots=True)
class Command:
    """How to start a server: one process in the foreground. `env` is added to the environment."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Contender:
    """A server under test.

    Attributes:
        name: as on the command line.
        title: as in tables.
        dialect: how the load generator has to speak to it.
        path: of the WebSocket.
        command: how to start it.
        publisher: makes a publisher for a Redis URL; None if the server publishes on its own (the floor).
        emitter: makes an emitter for a Redis URL; None if there is none to measure.
        ready_path: answers 200 once the server is usable; None: usable when it accepts connections.
        cases: the cases that make sense; None: all.
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
