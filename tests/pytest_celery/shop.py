"""A small application, as a project has it: what the worker nodes run."""

from __future__ import annotations

import os
import time
from pathlib import Path

from celery import Celery

from eventbus import emit
from tests.eventbus.testing.events import Indexed
from worker_adapter import install, track

app = Celery("shop", broker=os.environ.get("SHOP_BROKER"), backend=os.environ.get("SHOP_BACKEND"))
app.conf.update(
    broker_connection_retry_on_startup=True,
    # Messages of a killed worker are redelivered when another worker begins, if this time (seconds) has passed.
    broker_transport_options={"visibility_timeout": 0.1},
    worker_prefetch_multiplier=1,
    imports=["tests.pytest_celery.shop"],
)
install(app)


@app.task
def index(documents: list[str]) -> int:
    for document in track(documents, stage="reading"):
        emit(Indexed(document=document))
    return len(documents)


@app.task(acks_late=True)
def hold(until: str) -> None:
    """Runs until the file is there."""
    emit(Indexed(document="held"))
    while not Path(until).exists():
        time.sleep(0.01)
