"""Kills the worker on request, as a power failure would, and requeues its unfinished messages."""

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
# Seconds between the reply and the kill.
_REPLY_TIME: Final = 0.2
_REPLY_TIMEOUT: Final = 2.0


@control_command(name=_COMMAND)  # type: ignore[untyped-decorator] # Celery has no types
def kill_this_worker(_: Any) -> dict[str, str]:
    """Kill the worker's main process and its children. Runs in the worker.

    The worker kills only its own process group, so a request cannot name another process.
    """
    group = os.getpgrp()
    if group != os.getpid():
        return {"error": "cannot kill the worker: it shares its process group with other processes"}
    timer = threading.Timer(_REPLY_TIME, os.killpg, (group, signal.SIGKILL))
    timer.daemon = True
    timer.start()
    return {"ok": "killed"}


def kill_worker(app: Celery) -> bool:
    """Ask the workers of this application to kill themselves. Returns whether one confirmed it."""
    answers = app.control.broadcast(_COMMAND, reply=True, timeout=_REPLY_TIMEOUT, limit=1)
    return any("ok" in reply for answer in answers or () for reply in answer.values())


def requeue_unacknowledged(broker: str, prefix: str) -> None:
    """Requeue the messages that a killed worker has not acknowledged.

    Celery's Redis transport does this after its visibility timeout, one hour by default. The demo need not wait: it
    has seen the worker's process end.
    """
    options = {"global_keyprefix": f"{prefix}:", "visibility_timeout": 0}
    with Connection(broker, transport_options=options) as connection:
        connection.default_channel.qos.restore_visible(num=10_000)
