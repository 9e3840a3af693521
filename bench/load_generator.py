"""Builds and starts the load generator `load/main.c` and reads its reports."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import jwt

from bench.contenders.contract import SECRET, Contender, Launch
from bench.payload import user_name
from bench.processes import Child, ChildError

__all__ = ["FAULTS", "LoadGenerator", "build", "running_load", "write_tokens"]

FAULTS: Final = ("missing", "repeated", "strays", "closes", "violations")
"""The faults that a report counts since the last start, independent of marks."""

_FOLDER: Final = Path(__file__).parent / "load"
_TOKEN_SECONDS: Final = 3600
_OPEN_SECONDS: Final = 70.0


def build() -> None:
    """Compile the programs in load/. Raises CalledProcessError, or FileNotFoundError without `make`."""
    subprocess.run(["make", "--silent", "-C", str(_FOLDER)], check=True)


def write_tokens(path: Path, count: int) -> None:
    """Write a file with a user and a token (HS256, valid for an hour) per line."""
    expires = int(time.time()) + _TOKEN_SECONDS
    users = (user_name(number) for number in range(count))
    lines = (f"{user} {jwt.encode({'sub': user, 'exp': expires}, SECRET, algorithm='HS256')}\n" for user in users)
    path.write_text("".join(lines))


class LoadGenerator:
    """A running load generator. Its reports are the dictionaries that load/main.c prints."""

    def __init__(self, child: Child, connections: int) -> None:
        self._child = child
        self._connections = connections

    @property
    def pid(self) -> int:
        return self._child.pid

    def open(self) -> dict[str, Any]:
        """Open and authenticate all connections. Raises ChildError if one of them fails."""
        report = self._child.request("open", _OPEN_SECONDS)
        if report["ready"] != self._connections:
            raise ChildError(f"cannot open all connections: {report['ready']} of {self._connections} became ready")
        return report

    def start(self) -> None:
        """Reset all counters. Each connection expects event 0 next."""
        self._child.request("start")

    def mark(self) -> None:
        """Reset the counters, except `received` and the FAULTS."""
        self._child.request("mark")

    def report(self) -> dict[str, Any]:
        """Return the counters since the last mark; `received` and the FAULTS since the last start."""
        return self._child.request("report")


@contextmanager
def running_load(
    contender: Contender, launches: Sequence[Launch], connections: int, collections: int = 0
) -> Iterator[LoadGenerator]:
    """Start a load generator for the servers of a contender. The file `tokens` is next to the progress file."""
    launch = launches[0]
    options = {
        "--port": ",".join(str(each.port) for each in launches),
        "--collections": str(collections),
        "--connections": str(connections),
        "--tokens": str(launch.progress.parent / "tokens"),
        "--progress": str(launch.progress),
        "--dialect": contender.dialect,
        "--path": contender.path,
    }
    argv = [str(_FOLDER / "load"), *(part for option in options.items() for part in option)]
    with Child(argv) as child:
        yield LoadGenerator(child, connections)
