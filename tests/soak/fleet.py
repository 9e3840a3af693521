"""Workers that are killed: now and then a process of a pool, now and then a whole worker, which is started again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Self

from tests.conftest import wait_until
from tests.soak.ledger import Ledger

__all__ = ["Fleet", "Worker", "children_of", "resident"]

ROOT = Path(__file__).parents[2]


class Worker:
    """``celery worker``, with a pool of processes."""

    def __init__(
        self, name: str, log: Path, environment: dict[str, str], processes: int, app: str = "tests.soak.app"
    ) -> None:
        self.name = name
        self.log = log
        self._environment = environment
        self._processes = processes
        self._app = app
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return immediately."""
        command = [sys.executable, "-m", "celery", "-A", self._app, "worker", "-n", f"{self.name}@tests", "-l", "INFO"]
        command += ["-c", str(self._processes), "--without-gossip", "--without-mingle"]
        command += ["-E"] if self._environment.get("SOAK_EVENTS") else ["--without-heartbeat"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=self._environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )

    def wait_ready(self) -> None:
        """Return when it takes tasks, for the first time."""
        wait_until(lambda: b" ready." in self.log.read_bytes(), f"{self.name}, see {self.log}", 60)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def ask_to_stop(self) -> None:
        """Warmly."""
        if self._process is not None:
            self._process.terminate()

    def stop(self) -> None:
        """Wait for that, then use force."""
        if self._process is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(15)
        self._end()

    def kill(self, ledger: Ledger, *, at_the_same_time: bool) -> None:
        """Kill all processes, or the main process alone and the others some time after it."""
        pids = children_of(self.pid)
        if not at_the_same_time:
            self._process.kill()
            self._process.wait()
            pids = [pid for pid in pids if _is_there(pid)]
        ledger.killing(pids, whole=True)
        self._end()

    def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(5)


class Fleet:
    """Some workers. The main process of the first one is never killed, because its memory is measured."""

    def __init__(self, workers: list[Worker], ledger: Ledger, seed: int) -> None:
        self.workers = workers
        self.processes_killed = self.workers_killed = 0
        self._ledger = ledger
        self._random = Random(seed)

    def __enter__(self) -> Self:
        for worker in self.workers:
            worker.start()
        for worker in self.workers:
            worker.wait_ready()
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.ask_to_stop()
        for worker in self.workers:
            worker.stop()

    def kill_process(self) -> None:
        """One process of one pool."""
        pids = children_of(self._random.choice(self.workers).pid)
        if pids:
            pid = self._random.choice(sorted(pids))
            self._ledger.killing([pid])
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.processes_killed += 1

    def kill_worker(self) -> None:
        """A whole worker, and start it again."""
        worker = self._random.choice(self.workers[1:])
        worker.kill(self._ledger, at_the_same_time=self._random.random() < 0.5)
        self.workers_killed += 1
        worker.start()


def children_of(pid: int) -> list[int]:
    """Processes whose parent this is."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(folder.name))
    return found


def _is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def resident(pid: int) -> int:
    """Resident bytes of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))
