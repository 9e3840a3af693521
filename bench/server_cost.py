"""Counts what an event costs the server in instructions, and compares with another commit.

``python -m bench.server_cost --against COMMIT`` replays the same script of commands (``server_script.py``) with the
code of both commits, at the server that the tests use, under callgrind. Instructions do not depend on the load of the
machine. ``--gateway`` compares the hot paths of ``make bench-check`` in the same way.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import hiredis

from bench.processes import Child, free_port, wait_until_ready
from eventbus.backends.redis.connections.resp import pack
from eventbus.testing import server_binary

__all__ = ["main"]

ROOT: Final = Path(__file__).parent.parent
BEFORE: Final = "3ef8b5a"
"""The commit before timelines."""

_SCRIPT: Final = ROOT / "bench" / "server_script.py"
_MARK: Final = "echoCommand"  # callgrind writes the counts so far when the server carries out ECHO
_SECONDS: Final = 600
Figures = dict[str, float]


@contextmanager
def _checked_out(commit: str, folder: Path) -> Iterator[Path]:
    """Check a commit out into a separate folder."""
    tree = folder / "tree"
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(tree), commit], check=True)
    try:
        yield tree
    finally:
        subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def _run(tree: Path, *arguments: str) -> str:
    """Run Python with the packages of a tree."""
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=tree, env={"PYTHONPATH": str(tree), "PATH": "/usr/bin:/bin"}, check=True, stdout=subprocess.PIPE
    )
    return done.stdout.decode()


def _server_counts(tree: Path, folder: Path) -> Figures:
    """Return the instructions of the server per event of each phase."""
    script = folder / "script"
    _run(tree, str(_SCRIPT), str(script))
    lines: list[dict[str, Any]] = [json.loads(line) for line in script.read_text().splitlines()]
    port, dump = free_port(), folder / "counts"
    valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={dump}", f"--dump-before={_MARK}"]
    # One thread, and few turns of the cron: they cost by time, and the server is slow here.
    options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--hz", "1", "--dir", str(folder)]
    with Child([*valgrind, server_binary(), "--port", str(port), *options, "--logfile", str(folder / "log")]) as server:
        wait_until_ready(server, port)
        with socket.create_connection(("127.0.0.1", port), _SECONDS) as connection:
            for line in lines:
                _replay(connection, [pack(("SCRIPT", "LOAD", source)) for source in line["scripts"]])
                _replay(connection, [pack(("ECHO", "begin"))])
                _replay(connection, [base64.b64decode(command) for command in line["commands"]])
                _replay(connection, [pack(("ECHO", "end"))])
    counts = [_total(folder / f"counts.{number}") for number in range(1, 2 * len(lines) + 1)]
    return {
        line["name"]: count / line["events"] for line, count in zip(lines, counts[1::2], strict=True) if line["name"]
    }


def _replay(connection: socket.socket, commands: list[bytes]) -> None:
    reader = hiredis.Reader()
    for start in range(0, len(commands), 50):
        some = commands[start : start + 50]
        connection.sendall(b"".join(some))
        for _ in some:
            while (reply := reader.gets()) is False:
                reader.feed(connection.recv(1 << 18))
            if isinstance(reply, Exception):
                raise reply


def _total(path: Path) -> int:
    found = re.search(r"^(?:totals|summary): (\d+)", path.read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit(f"cannot read {path} of callgrind")
    return int(found[1])


def _gateway_counts(tree: Path) -> Figures:
    """Return the instructions of each hot path, against the calibration loop of the same run."""
    code = "import json; from bench.check import count_instructions as c; print(json.dumps(c()))"
    counts: Figures = json.loads(_run(tree, "-c", code).splitlines()[-1])
    unit = counts.pop("calibration")
    return {name: 1000 * value / unit for name, value in counts.items()}


def _print(title: str, before: Figures, now: Figures) -> None:
    print(f"{title:32}{'before':>12}{'now':>12}{'change':>9}")
    for name, value in now.items():
        print(f"{name:32}{before[name]:12.0f}{value:12.0f}{value / before[name] - 1:+9.1%}")


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.server_cost", description=__doc__)
    parser.add_argument("--against", default=BEFORE, help="the commit to compare with; default: before timelines")
    parser.add_argument("--gateway", action="store_true", help="compare the hot paths of gateway and worker instead")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        raise SystemExit("bench.server_cost: valgrind is missing; install it")
    with TemporaryDirectory(prefix="bench-server-") as name, _checked_out(options.against, Path(name)) as tree:
        if options.gateway:
            _print("1/1000 of the calibration loop", _gateway_counts(tree), _gateway_counts(ROOT))
            return
        figures = []
        for number, of in enumerate((tree, ROOT)):
            folder = Path(name, str(number))
            folder.mkdir()
            figures.append(_server_counts(of, folder))
        _print("instructions per event", *figures)


if __name__ == "__main__":
    main()
