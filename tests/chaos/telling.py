"""A task that emits numbered notes until it is killed, and what else runs in that worker: nothing."""

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
app = Celery("tests.chaos.telling", broker=f"{server}/1")
app.conf.update(
    broker_connection_retry_on_startup=True,
    # What a worker that is gone had taken comes again when the next one starts.
    broker_transport_options={"visibility_timeout": 1},
    worker_prefetch_multiplier=1,
    worker_lost_wait=0.2,
    include=["tests.chaos.telling"],
)
install(app)


def _tell(path: str, more: int) -> None:
    """Note what is acknowledged as ``pid n``. The first life goes on until it is killed, the next so much further."""
    notes, operation = Path(path), current_operation.get()
    former = [line.split() for line in notes.read_text().splitlines()] if notes.exists() else []
    enough = int(former[-1][1]) + more if former else None
    n = 0
    while enough is None or n <= enough:
        emit(Note(n=n), id=f"{operation.op}-{n}")
        if n % 10 == 0 and default_bus().flush(5):
            with notes.open("a") as file:
                file.write(f"{os.getpid()} {n}\n")
        n += 1
        time.sleep(0.0005)


@app.task(acks_late=True, reject_on_worker_lost=True)
def tell(path, more):
    _tell(path, more)


@app.task
def tell_once(path, more):
    _tell(path, more)
