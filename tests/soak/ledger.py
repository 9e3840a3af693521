"""Ledger in SQLite: the runs of the tasks, written by the tasks, and the kills, written by the killer."""

from __future__ import annotations

import itertools
import os
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from celery.app.task import Context

from worker_adapter.context.headers import task_key_of

__all__ = ["Kill", "Ledger", "Run"]

_TABLES = """
CREATE TABLE IF NOT EXISTS runs (
    run TEXT PRIMARY KEY, op TEXT, task TEXT, late INTEGER, attempt INTEGER, pid INTEGER,
    began REAL, ended REAL, outcome TEXT, parent TEXT, task_key TEXT, chord INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS kills (pid INTEGER, at REAL, whole INTEGER);
"""


@dataclass(frozen=True)
class Run:
    """One run of a task.

    ``outcome``: ``done``, ``failed``, ``retry``, ``stopped``; empty if it has no end. ``parent``: the task that
    published it. ``chord``: whether a chord waits for it.
    """

    op: str
    task: str
    late: bool
    attempt: int
    pid: int
    began: float
    ended: float
    outcome: str
    parent: str = ""
    task_key: str = ""
    chord: bool = False


@dataclass(frozen=True)
class Kill:
    """A process that was killed, and when, at the earliest. ``whole``: with its worker."""

    pid: int
    at: float
    whole: bool = False


class Ledger:
    """One connection, for one process at a time: after a fork there is a new one."""

    def __init__(self, path: str | Path) -> None:
        self._path = str(path)
        self._pid = 0
        self._numbers = itertools.count()

    def _run(self, sql: str, values: Iterable[object] = ()) -> sqlite3.Cursor:
        row, ends = tuple(values), time.monotonic() + 30
        while True:
            try:
                self._open()
                return self._db.execute(sql, row)
            except sqlite3.OperationalError as error:
                # SQLite does not wait while another process opens the file, or was killed while it wrote.
                if "locked" not in str(error) or time.monotonic() > ends:
                    raise
                time.sleep(0.005)

    def _open(self) -> None:
        if self._pid == os.getpid():
            return
        # Autocommit: a row is there when the call has returned, whatever becomes of the process.
        self._db = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=OFF")  # processes are killed here, not machines
        self._db.executescript(_TABLES)
        self._pid = os.getpid()

    def began(self, op: str, request: Context, *, late: bool) -> str:
        """A task runs. Returns what to call this run."""
        run = f"{os.getpid()}-{time.monotonic_ns()}-{next(self._numbers)}"
        task_key = task_key_of("", request.id, request.headers).value
        row = (run, op, request.id, late, request.retries, os.getpid(), time.time(), 0.0, "")
        row += (request.parent_id or "", task_key, request.chord is not None)
        self._run(f"INSERT INTO runs VALUES ({', '.join('?' * len(row))})", row)
        return run

    def ended(self, run: str, outcome: str) -> None:
        """A run has ended by itself."""
        self._run("UPDATE runs SET ended = ?, outcome = ? WHERE run = ?", (time.time(), outcome, run))

    def killing(self, pids: Iterable[int], *, whole: bool = False) -> None:
        """These processes are about to be killed."""
        for pid in pids:
            self._run("INSERT INTO kills VALUES (?, ?, ?)", (pid, time.time(), whole))

    def runs(self) -> list[Run]:
        """All of them."""
        columns = "op, task, late, attempt, pid, began, ended, outcome, parent, task_key, chord"
        rows = self._run(f"SELECT {columns} FROM runs ORDER BY began")
        return [Run(row[0], row[1], bool(row[2]), *row[3:10], bool(row[10])) for row in rows]

    def kills(self) -> list[Kill]:
        """All of them."""
        return [Kill(pid, at, bool(whole)) for pid, at, whole in self._run("SELECT * FROM kills ORDER BY at")]
