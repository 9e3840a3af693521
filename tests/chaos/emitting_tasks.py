"""A Celery application whose only tasks emit numbered notes until they are killed."""

from __future__ import annotations

import os
import time
from pathlib import Path

from celery import Celery

from eventbus import default_bus, emit
from eventbus.operations.events import current_operation
from tests.webui_adapter.events import Note
from worker_adapter import install

server = os.environ.get("TESTS_REDIS", "redis://127.0.0.1:6379")
app = Celery("tests.chaos.emitting_tasks", broker=f"{server}/1")
app.conf.update(
    broker_connection_retry_on_startup=True,
    # The next worker receives the messages of a worker that is gone.
    broker_transport_options={"visibility_timeout": 1},
    worker_prefetch_multiplier=1,
    worker_lost_wait=0.2,
    include=["tests.chaos.emitting_tasks"],
)
install(app)


def _emit_notes(path: str, more: int) -> None:
    """Write ``pid n`` for each acknowledged note. The first run never ends, the next after ``more``."""
    notes, operation = Path(path), current_operation.get()
    earlier = [line.split() for line in notes.read_text().splitlines()] if notes.exists() else []
    enough = int(earlier[-1][1]) + more if earlier else None
    n = 0
    while enough is None or n <= enough:
        emit(Note(n=n), id=f"{operation.op}-{n}")
        if n % 10 == 0 and default_bus().flush(5):
            with notes.open("a") as file:
                file.write(f"{os.getpid()} {n}\n")
        n += 1
        time.sleep(0.0005)


@app.task
def emit_numbered(path, count):
    """Emit ``count`` notes, and write a line for each."""
    for n in range(count):
        emit("ann", "numbered", Note(n=n))
        with Path(path).open("a") as file:
            file.write(f"{n}\n")
        time.sleep(0.02)


@app.task(acks_late=True, reject_on_worker_lost=True)
def emit_late(path, more):
    _emit_notes(path, more)


@app.task
def emit_once(path, more):
    _emit_notes(path, more)
