"""An application without ``install``: its workers run tasks of operations and report nothing."""

import os

from celery import Celery

server = os.environ.get("TESTS_REDIS", "redis://127.0.0.1:6379")
app = Celery("tests.worker_adapter.uninstalled", broker=f"{server}/1", backend=f"{server}/2")
app.conf.update(broker_connection_retry_on_startup=True, include=["tests.worker_adapter.uninstalled"])


@app.task
def ping(*args):
    return "pong"
