"""Celery adapter: tasks that belong to operations and report to the pages of a user."""

from worker_adapter.context.threads import with_task_context
from worker_adapter.installation import Installation, install
from worker_adapter.lifecycle.cancellation import OperationCancelled, check_cancelled
from worker_adapter.on_success import emit_on_success
from worker_adapter.operation_start import Operation, astart_operation, start_operation
from worker_adapter.settings import WorkerSettings
from worker_adapter.tracking.files import TrackedFile, track_file
from worker_adapter.tracking.stage import Stage
from worker_adapter.tracking.stages import Stages, stages
from worker_adapter.tracking.steps import Progress, atrack, progress, track

__all__ = [
    "Installation",
    "Operation",
    "OperationCancelled",
    "Progress",
    "Stage",
    "Stages",
    "TrackedFile",
    "WorkerSettings",
    "astart_operation",
    "atrack",
    "check_cancelled",
    "emit_on_success",
    "install",
    "progress",
    "stages",
    "start_operation",
    "track",
    "track_file",
    "with_task_context",
]
