"""The application of the soak: short tasks that record their runs in the ledger."""

from __future__ import annotations

import os
import time

from celery import Celery

from eventbus.operations.events import current_operation
from tests.soak.ledger import Ledger
from worker_adapter import OperationCancelled, install, progress

server = os.environ.get("TESTS_REDIS", "redis://127.0.0.1:6379")
app = Celery("tests.soak.app", broker=f"{server}/1", backend=f"{server}/2")
app.conf.update(
    broker_connection_retry_on_startup=True,
    # Messages that a killed worker had taken are redelivered after this, and so are those of running tasks.
    broker_transport_options={"visibility_timeout": float(os.environ.get("SOAK_VISIBILITY", "2"))},
    worker_prefetch_multiplier=1,
    worker_lost_wait=0.2,
    result_expires=300,
    include=["tests.soak.app"],
)
install(app)
ledger = Ledger(os.environ.get("SOAK_LEDGER", ":memory:"))

LATE = {"acks_late": True, "reject_on_worker_lost": True}


def _work(task, pause, fails, tries, spawns):
    operation = current_operation.get()
    retries, late = task.request.retries, bool(task.acks_late)
    run = ledger.began(operation.op, task.request, late=late)
    try:
        with progress(total=3) as steps:
            for _ in range(3):
                time.sleep(pause / 3)
                steps.step()
        for _ in range(spawns):
            task.s(pause=pause).delay()
    except OperationCancelled:
        ledger.ended(run, "stopped")
        raise
    if retries < tries:
        ledger.ended(run, "retry")
        raise task.retry(countdown=0, max_retries=None, exc=ConnectionError("not yet"))
    ledger.ended(run, "failed" if fails else "done")
    if fails:
        raise ValueError("no such page")


@app.task(bind=True, **LATE)
def late(self, *results, pause=0.0, fails=False, tries=0, spawns=0):
    _work(self, pause, fails, tries, spawns)


@app.task(bind=True)
def early(self, *results, pause=0.0, fails=False, tries=0, spawns=0):
    _work(self, pause, fails, tries, spawns)
