"""Every bound of this package, with its default. Each can be set by environment: ``EVENTBUS_<NAME>``."""

from __future__ import annotations

from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from eventbus.protocol.topics import kind_of

__all__ = ["BusSettings"]

_SCHEMES = frozenset({"redis", "rediss", "unix", "memory"})


class BusSettings(BaseSettings):
    """What both ends share. Times are seconds unless the name says otherwise, sizes are bytes."""

    model_config = SettingsConfigDict(env_prefix="EVENTBUS_", frozen=True, extra="ignore", hide_input_in_errors=True)

    redis_url: str = Field("redis://127.0.0.1:6379/0", description="Redis or Valkey; memory:// stays in the process")
    key_prefix: str = Field("eb", pattern=r"^[A-Za-z0-9_-]{1,32}$", description="first part of every key")
    connect_timeout: float = Field(1.0, gt=0, description="to open a connection")
    socket_timeout: float = Field(2.0, gt=0, description="for any answer from Redis")
    ping_interval: float = Field(0.5, gt=0, description="between two pings on a subscriber's connection")
    silence_limit: float = Field(2.0, gt=0, description="a server from which nothing has come for so long is lost")

    user_ttl: timedelta = Field(timedelta(hours=24), description="life of what is kept of a user's channel")
    collection_ttl: timedelta = Field(timedelta(hours=1), description="the same of a collection's")
    system_ttl: timedelta = Field(timedelta(minutes=5), description="the same of the system channel")
    log_limit: int = Field(10_000, ge=1, description="events kept in a channel's log")
    snapshot_limit: int = Field(5_000, ge=1, description="conflation keys kept in a channel's snapshot")
    dedup_window: int = Field(10_000, ge=1, description="event ids of a channel that are remembered")
    max_event_bytes: int = Field(1_048_576, ge=256, description="largest event, as JSON")

    pending_limit: int = Field(500, ge=1, description="events of one lane that wait for a user's acknowledgement")
    ack_timeout: float = Field(10.0, gt=0, description="for an acknowledgement; doubles with each attempt")
    ack_attempts: int = Field(5, ge=1, description="times that an event is sent to a user who is there")
    dead_limit: int = Field(1_000, ge=1, description="dead letters kept of one channel")
    dead_ttl: timedelta = Field(timedelta(days=30), description="life of a dead letter that nobody decides about")
    requeue_rate: float = Field(50.0, gt=0, description="dead letters that one requeues a second")

    operations_limit: int = Field(500, ge=1, description="operations of one user that are listed")
    running_shown: int = Field(100, ge=1, description="running tasks that are shown of one operation")
    cancelled_limit: int = Field(10_000, ge=1, description="cancelled operations that workers are told of")
    cancelled_ttl: timedelta = Field(timedelta(hours=24), description="for how long they are told")
    lost_patience: timedelta = Field(
        timedelta(hours=2),
        description="time until a lost task's message is redelivered; above the broker's visibility timeout plus 100 s",
    )

    outbox_events: int = Field(50_000, ge=1, description="events that may wait in a process")
    outbox_bytes: int = Field(64 * 1_048_576, ge=1024, description="bytes that may wait in a process")
    linger: float = Field(0.005, ge=0, description="least time between two batches; the high lane does not wait")
    batch_events: int = Field(2_048, ge=1, description="events in one round trip; a quarter while some are urgent")
    turn_events: int = Field(8, ge=1, description="of them, events of one topic in a row; in the high lane always one")
    batch_bytes: int = Field(1_048_576, ge=1024, description="bytes in one round trip")
    flush_budget: float = Field(1.0, ge=0, description="what the end of a task may wait for the outbox to empty")
    strict_timeout: float = Field(5.0, gt=0, description="what emit(strict=True) waits for Redis")
    commit_events: int = Field(1_000, ge=1, description="events that may wait for one transaction's commit")
    channel_rate: float = Field(
        1_000, ge=0, description="latest and nothing events of one channel a second and process; 0: no limit"
    )
    spool: bool = Field(True, description="keep log events on disk when memory is full or the process ends")
    spool_dir: Path | None = Field(None, description="where; default: a folder of this user's in the system's for such")
    spool_bytes: int = Field(64 * 1_048_576, ge=1024, description="on disk, of all processes of this host")
    spool_fsync: Literal["never", "close", "always"] = Field("close", description="when the disk is asked to be sure")
    spool_scan: float = Field(10.0, gt=0, description="between two looks for what processes that are gone have left")
    breaker_failures: int = Field(3, ge=1, description="in a row, after which Redis counts as away")
    breaker_after: float = Field(1.0, gt=0, description="seconds of failing after which it does, too")
    retry_min: float = Field(0.05, gt=0, description="first pause after Redis failed; doubles, with full jitter")
    retry_max: float = Field(5.0, gt=0, description="longest pause")

    @field_validator("redis_url")
    @classmethod
    def _an_address(cls, url: str) -> str:
        # Here, where it is said at once: later, in a thread, every event would be dropped for it. What is said holds
        # nothing of the address, which may hold a password.
        try:
            parts = urlsplit(url)
            known = parts.scheme in _SCHEMES and (parts.port or True)
        except ValueError:
            known = False
        if not known:
            raise ValueError("must read redis://host:port/0, rediss://…, unix://… or memory://")
        return url

    def channel_ttl(self, channel: str) -> float:
        """Seconds that what is kept of a channel lives, by the channel's kind."""
        return self._ttl_of_kind[kind_of(channel)]

    @cached_property
    def _ttl_of_kind(self) -> dict[str, float]:
        return {kind: getattr(self, f"{kind}_ttl").total_seconds() for kind in ("user", "collection", "system")}
