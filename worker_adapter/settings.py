"""Settings of the Celery side. Each is read from the environment: ``EVENTBUS_WORKER_<NAME>``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["TaskEventKind", "WorkerSettings"]

TaskEventKind = Literal["started", "succeeded", "retry", "failed", "revoked"]


class WorkerSettings(BaseSettings):
    """Bounds of the tasks of an application. Times are seconds."""

    model_config = SettingsConfigDict(
        env_prefix="EVENTBUS_WORKER_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    flush_budget: float = Field(
        1.0, ge=0, description="time that the end of a task waits until Redis has its events; 0: no wait"
    )
    progress_interval: float = Field(
        0.25, gt=0, description="time between two events of one progress; the last event is always sent"
    )
    rate_window: float = Field(5.0, gt=0, description="time over which the rate of a progress is estimated")
    success_events: int = Field(1_000, ge=1, description="events that may wait for the success of one task")
    error_chars: int = Field(
        200, ge=0, le=10_000, description="length of the error message that a page sees; 0: the class name only"
    )
    message_chars: int = Field(200, ge=0, le=10_000, description="length of the message of a progress that a page sees")
    label_chars: int = Field(
        200, ge=0, le=1_000, description="length of an operation's label; each Celery message contains it"
    )
    lease: float = Field(
        30.0, ge=0, le=86_400, description="time without a renewal after which a running task is lost; 0: never"
    )
    cancel_poll: float = Field(0.5, gt=0, description="time between two reads of the cancelled operations")
    cancel_grace: float = Field(
        10.0, ge=0, description="time that a cancelled task has to stop before its process is terminated"
    )
    kill_grace: float = Field(5.0, ge=0, description="time between the termination of a process and its kill")
    cancelled_limit: int = Field(10_000, ge=1, description="cancelled operations that a process remembers")
    flower_interval: float = Field(
        2.0, ge=0, description="time between two progress events of one task for Flower; 0: none"
    )
    report_interval: float = Field(
        5.0, gt=0, description="time between two reports of a pool's process about its outbox"
    )
    events: frozenset[TaskEventKind] = Field(
        frozenset({"started", "succeeded", "retry", "failed", "revoked"}),
        description="task.* events to emit, as a JSON list; operation.* events do not depend on them",
    )
