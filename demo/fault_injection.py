"""A worker that is killed on request, like one whose machine has lost its power, and what it had begun."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any, Final

from celery import Celery
from celery.worker.control import control_command
from kombu.connection import Connection

__all__ = ["kill_worker", "requeue_unacknowledged"]

_COMMAND: Final = "demo_die"
# Seconds. The answer leaves before the worker does.
_REPLY_TIME: Final = 0.2
_REPLY_TIMEOUT: Final = 2.0


@control_command(name=_COMMAND)  # type: ignore[untyped-decorator] # Celery has no types
def kill_this_worker(_: Any) -> dict[str, str]:
    """In the worker: kill the main process and its children, all at once. Nobody but the worker itself names a process
    to be killed, so it can be no other's.
    """
    group = os.getpgrp()
    if group != os.getpid():
        return {"error": "this worker has no process group of its own"}
    timer = threading.Timer(_REPLY_TIME, os.killpg, (group, signal.SIGKILL))
    timer.daemon = True
    timer.start()
    return {"ok": "killed"}


def kill_worker(app: Celery) -> bool:
    """Have the workers of this application killed. Whether one has said that it will be."""
    answers = app.control.broadcast(_COMMAND, reply=True, timeout=_REPLY_TIMEOUT, limit=1)
    return any("ok" in said for answer in answers or () for said in answer.values())


def requeue_unacknowledged(broker: str, prefix: str) -> None:
    """Put the messages that a dead worker has not acknowledged back into their queues.

    A Redis broker does so itself, after its visibility timeout: an hour, since it cannot know that nobody works on them
    any more. Whoever has waited for the worker's process to end knows.
    """
    options = {"global_keyprefix": f"{prefix}:", "visibility_timeout": 0}
    with Connection(broker, transport_options=options) as connection:
        connection.default_channel.qos.restore_visible(num=10_000)
