"""Celery's side: tasks that belong to operations, and the people who wait for them."""

from worker_adapter.cancelled import OperationCancelled, check_cancelled
from worker_adapter.install import Installation, install
from worker_adapter.progress import Progress, progress, track
from worker_adapter.settings import WorkerSettings
from worker_adapter.start import Operation, astart_operation, start_operation

__all__ = [
    "Installation",
    "Operation",
    "OperationCancelled",
    "Progress",
    "WorkerSettings",
    "astart_operation",
    "check_cancelled",
    "install",
    "progress",
    "start_operation",
    "track",
]
