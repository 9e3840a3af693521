"""The application of these tests: a task that runs until its operation is cancelled."""

from __future__ import annotations

import os
import time
from pathlib import Path

from celery import Celery

from eventbus import Event, emit
from worker_adapter import install, track

broker = os.environ.get("TESTS_BROKER", "redis://127.0.0.1:6379/1")
app = Celery("tests.deployments.app", broker=broker, backend=os.environ.get("TESTS_BACKEND", broker))
app.conf.update(broker_connection_retry_on_startup=True, task_default_queue="deployments")
install(app)


class Walked(Event, name="deployments.walked"):
    """A step."""

    n: int


@app.task
def walk(steps: int) -> int:
    """Emit some events."""
    for n in track(range(steps)):
        emit(Walked(n=n))
    return steps


@app.task
def run_on(path: str) -> None:
    """Run until the operation is cancelled."""
    Path(path).write_text("begun")
    for _ in track(iter(int, 1)):
        time.sleep(0.01)
