"""Every bound of this package, with its default. The environment sets each of them: ``EVENTBUS_<NAME>``."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from eventbus.protocol.topics import kind_of
from eventbus.redis_url import RedisAddress, parse_redis_url

__all__ = ["BusSettings"]


def _runs_tests() -> bool:
    """Whether this process is a run of pytest, or of Django's ``manage.py test``."""
    return "PYTEST_VERSION" in os.environ or sys.argv[1:2] == ["test"]


def _from_seconds(value: object) -> object:
    """Read a plain number as seconds. pydantic reads ISO 8601 and HH:MM:SS itself."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


Duration = Annotated[timedelta, BeforeValidator(_from_seconds)]


class BusSettings(BaseSettings):
    """Settings of workers, web applications and gateways. Times are seconds, sizes are bytes."""

    model_config = SettingsConfigDict(env_prefix="EVENTBUS_", frozen=True, extra="ignore", hide_input_in_errors=True)

    # Not part of repr(): reports of crashes contain it, and the address may have a password.
    redis_url: str = Field(
        "redis://127.0.0.1:6379/0", repr=False, description="Redis or Valkey; memory:// stays in the process"
    )
    key_prefix: str = Field("eb", pattern=r"^[A-Za-z0-9_-]{1,32}$", description="first part of every key")
    connect_timeout: float = Field(1.0, gt=0, description="time limit to open a connection")
    timeline_patience: float = Field(
        3.0,
        gt=0,
        description="after a restart of Redis: longest wait for the processes that know whether it lost data",
    )
    socket_timeout: float = Field(2.0, gt=0, description="time limit for an answer from Redis")
    ping_interval: float = Field(0.5, gt=0, description="interval of pings on a subscriber's connection")
    silence_limit: float = Field(2.0, gt=0, description="a subscriber reconnects after so long without an answer")

    durable: Literal["none", "replicas"] = Field(
        "none", description="replicas: an event counts as published when the replicas of Redis have it too"
    )
    durable_replicas: int = Field(
        0, ge=0, description="replicas that must have an event; 0: all that follow the master, at least one"
    )
    durable_timeout: float = Field(1.0, gt=0, description="longest wait for the replicas; then events are sent again")
    durable_grace: float = Field(
        15.0, ge=0, description="how long a replica that has left still counts; above the time that a failover takes"
    )

    format_ttl: float = Field(
        30.0, gt=0, description="how long a gateway's announcement of its format holds; above WEBUI_PROBE_INTERVAL"
    )
    instance_lease: float = Field(
        6.0,
        gt=0,
        description="a gateway that sends no heartbeat for so long counts as lost; above WEBUI_INSTANCE_INTERVAL",
    )
    instance_window: float = Field(
        600.0, gt=0, description="how long `eventbus instances` shows a gateway that was lost"
    )
    format_interval: float = Field(
        10.0, gt=0, description="how often a process that publishes checks which format the gateways understand"
    )

    user_ttl: Duration = Field(
        timedelta(hours=24), description="how long Redis keeps a user's channel after its last event"
    )
    collection_ttl: Duration = Field(timedelta(hours=1), description="how long Redis keeps a collection's channel")
    system_ttl: Duration = Field(timedelta(minutes=5), description="how long Redis keeps the system channel")
    log_limit: int = Field(10_000, ge=1, description="events kept in a channel's log")
    snapshot_limit: int = Field(5_000, ge=1, description="conflation keys kept in a channel's snapshot")
    dedup_window: int = Field(10_000, ge=1, description="event ids that a channel remembers, to drop duplicates")
    max_event_bytes: int = Field(1_048_576, ge=256, description="largest event, as JSON")
    large_integers: Literal["refuse", "allow"] = Field(
        "refuse", description="what emit does with integers beyond 2**53 - 1, which a browser rounds"
    )

    pending_limit: int = Field(500, ge=1, description="events of one lane that may wait for a user's acknowledgement")
    ack_timeout: float = Field(10.0, gt=0, description="time limit for an acknowledgement; doubles with each attempt")
    ack_attempts: int = Field(
        5, ge=1, description="redeliveries of an event to a connected user before it is a dead letter"
    )
    dead_limit: int = Field(1_000, ge=1, description="dead letters that Redis keeps of one channel")
    dead_ttl: Duration = Field(
        timedelta(days=30), description="how long Redis keeps a dead letter that is neither requeued nor purged"
    )
    audit_limit: int = Field(10_000, ge=100, description="actions that the audit log keeps, or a little more")
    audit_ttl: Duration = Field(
        timedelta(days=90), description="how long Redis keeps the audit log after its last action"
    )
    requeue_rate: float = Field(50.0, gt=0, description="dead letters that one caller may requeue a second")

    revocation_ttl: Duration = Field(
        timedelta(days=7), description="how long tokens stay refused; above the longest life of a token"
    )
    revocation_limit: int = Field(10_000, ge=1, description="revocations that Redis keeps; a further one is an error")

    operations_limit: int = Field(500, ge=1, description="operations that are listed of one user")
    running_shown: int = Field(100, ge=1, description="running tasks that are shown of one operation")
    cancelled_limit: int = Field(10_000, ge=1, description="cancelled operations that workers learn of")
    cancelled_ttl: Duration = Field(timedelta(hours=24), description="how long workers learn of a cancelled operation")
    lost_patience: Duration = Field(
        timedelta(hours=2),
        description="time until a lost task's message is redelivered; above the broker's visibility timeout plus 100 s",
    )
    part_patience: Duration = Field(
        timedelta(hours=24),
        description="time that an operation may be silent while no task of it runs; then its queued tasks have failed; "
        "above the longest wait in a queue, and above EVENTBUS_LOST_PATIENCE; 0: any time",
    )

    outbox_events: int = Field(
        50_000,
        ge=1,
        description="events in memory; beyond it states are dropped and log events go to the spool",
    )
    outbox_bytes: int = Field(64 * 1_048_576, ge=1024, description="bytes that may wait in the memory of a process")
    linger: float = Field(0.005, ge=0, description="shortest time between two batches; the high lane does not wait")
    batch_events: int = Field(2_048, ge=1, description="events in one round trip; a quarter of it after urgent events")
    turn_events: int = Field(8, ge=1, description="events of one topic in a row within a batch; the high lane has one")
    batch_bytes: int = Field(1_048_576, ge=1024, description="bytes in one round trip")
    flush_budget: float = Field(1.0, ge=0, description="longest wait for the outbox at the end of a task")
    strict_timeout: float = Field(5.0, gt=0, description="longest wait of emit(strict=True) for Redis")
    commit_events: int = Field(1_000, ge=1, description="events that may wait for the commit of one transaction")
    channel_rate: float = Field(
        1_000,
        ge=0,
        description="events with keep=latest or nothing that a process sends a channel in a second; 0: no limit",
    )
    spool: bool = Field(
        True,
        description="write log events to disk when memory is full or the process ends; in tests: only with spool_dir",
    )
    spool_dir: Path | None = Field(
        None, description="folder of the spool; default: a folder of this user in the system's temporary folder"
    )
    application: str = Field(
        "",
        pattern=r"^[A-Za-z0-9_.-]{0,64}$",
        description="name of the application; applications on one host do not send each other's spools",
    )
    spool_bytes: int = Field(64 * 1_048_576, ge=1024, description="bytes on disk of all processes of this host")
    spool_fsync: Literal["never", "close", "always"] = Field("close", description="when the spool calls fsync")
    spool_scan: float = Field(10.0, gt=0, description="interval of the search for spools of ended processes")
    unexpected_tries: int = Field(
        20, ge=1, description="failures with an unexpected error, after which an event that holds up others is dropped"
    )
    breaker_failures: int = Field(3, ge=1, description="failures in a row after which the circuit breaker opens")
    breaker_after: float = Field(1.0, gt=0, description="seconds of failures after which the circuit breaker opens")
    retry_min: float = Field(0.05, gt=0, description="first pause after a failure of Redis; doubles, with full jitter")
    retry_max: float = Field(5.0, gt=0, description="longest pause between attempts to reach Redis")

    @model_validator(mode="before")
    @classmethod
    def _no_spool_in_tests(cls, given: dict[str, object]) -> dict[str, object]:
        # A worker that starts later would send the events of a test run without Redis to real users.
        if _runs_tests() and "spool" not in given and given.get("spool_dir") is None:
            return {**given, "spool": False}
        return given

    @field_validator("redis_url")
    @classmethod
    def _an_address(cls, url: str) -> str:
        parse_redis_url(url)  # a mistake shows at the start, not later in a thread
        return url

    @property
    def redis(self) -> RedisAddress:
        """``redis_url`` in parts."""
        return parse_redis_url(self.redis_url)

    @property
    def redis_address(self) -> str:
        """Hosts and ports, or the path of a socket, without user and password: for messages."""
        return str(self.redis)

    def channel_ttl(self, channel: str) -> float:
        """Return the seconds for which Redis keeps a channel, by the channel's kind.

        Args:
            channel: such as ``user:42``.
        """
        return self._ttl_of_kind[kind_of(channel)]

    @cached_property
    def part_patience_ms(self) -> int:
        """``part_patience`` in milliseconds."""
        return int(self.part_patience.total_seconds() * 1000)

    @cached_property
    def _ttl_of_kind(self) -> dict[str, float]:
        return {kind: getattr(self, f"{kind}_ttl").total_seconds() for kind in ("user", "collection", "system")}
