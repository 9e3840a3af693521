"""Celery's side: tasks that belong to operations, and the people who wait for them."""

from worker_adapter.cancelled import OperationCancelled, check_cancelled
from worker_adapter.carry import carry
from worker_adapter.files import Reading, track_file
from worker_adapter.install import Installation, install
from worker_adapter.progress import Progress, atrack, progress, track
from worker_adapter.settings import WorkerSettings
from worker_adapter.stages import Part, Stages, stages
from worker_adapter.start import Operation, astart_operation, start_operation
from worker_adapter.success import emit_on_success

__all__ = [
    "Installation",
    "Operation",
    "OperationCancelled",
    "Part",
    "Progress",
    "Reading",
    "Stages",
    "WorkerSettings",
    "astart_operation",
    "atrack",
    "carry",
    "check_cancelled",
    "emit_on_success",
    "install",
    "progress",
    "stages",
    "start_operation",
    "track",
    "track_file",
]
