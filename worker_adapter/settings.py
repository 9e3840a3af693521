"""Every bound of this package, with its default. Each can be set by environment: ``EVENTBUS_WORKER_<NAME>``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["TaskEventKind", "WorkerSettings"]

TaskEventKind = Literal["started", "succeeded", "retry", "failed", "revoked"]


class WorkerSettings(BaseSettings):
    """What the Celery side may do. Times are seconds."""

    model_config = SettingsConfigDict(env_prefix="EVENTBUS_WORKER_", frozen=True, extra="ignore")

    flush_budget: float = Field(
        1.0, ge=0, description="what the end of a task may wait for its events to reach Redis; 0: does not wait"
    )
    progress_interval: float = Field(
        0.25, gt=0, description="between two events of one progress; the last comes always"
    )
    rate_window: float = Field(5.0, gt=0, description="how far back the rate of a progress looks")
    success_events: int = Field(1_000, ge=1, description="events that may wait for one task's success")
    error_chars: int = Field(200, ge=0, le=10_000, description="of an error's message shown; 0: the class name only")
    message_chars: int = Field(200, ge=0, le=10_000, description="of a progress' message shown")
    label_chars: int = Field(200, ge=0, le=1_000, description="of an operation's label; it travels in every message")
    lease: float = Field(
        30.0, ge=0, le=86_400, description="within which a worker is heard of while a task runs; 0: nobody watches"
    )
    cancel_poll: float = Field(0.5, gt=0, description="between two looks for operations that somebody wants stopped")
    cancel_grace: float = Field(10.0, ge=0, description="for a task to stop by itself before its process is told to")
    kill_grace: float = Field(5.0, ge=0, description="for a process that was told to end before it is killed")
    cancelled_limit: int = Field(10_000, ge=1, description="cancelled operations that a process remembers")
    flower_interval: float = Field(
        2.0, ge=0, description="between two task-progress events for Flower, of one task; 0: none"
    )
    report_interval: float = Field(5.0, gt=0, description="between two words of a pool's process about its outbox")
    events: frozenset[TaskEventKind] = Field(
        frozenset({"started", "succeeded", "retry", "failed", "revoked"}),
        description="task.* events to emit, as a JSON list; operation.* events do not depend on them",
    )
