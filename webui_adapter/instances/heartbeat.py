"""The heartbeat of an instance: it renews its lease in the registry and says what it is doing."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import os
import socket
from collections.abc import Mapping
from typing import Final

from eventbus.backends.instances import InstanceRecord, InstanceRegistry, InstanceState, Renewal
from eventbus.errors import TransportError
from eventbus.protocol.formats import FORMAT
from webui_adapter.context import GatewayContext
from webui_adapter.health.status import Degradation, HealthStatus
from webui_adapter.instances.process_load import ProcessLoad
from webui_adapter.session.session import Session

__all__ = ["Heartbeat", "instance_state"]

log = logging.getLogger(__name__)

_PACKAGE: Final = "celery-eventbus"


class Heartbeat:
    """Keeps one gateway in the registry.

    Args:
        context: the gateway's name, settings, clock and counters.
        registry: where to say it.
        health: what is wrong with Redis.
        sessions: the open sessions by id.
    """

    def __init__(
        self,
        context: GatewayContext,
        registry: InstanceRegistry,
        health: HealthStatus,
        sessions: Mapping[str, Session],
    ) -> None:
        self._context = context
        self._registry = registry
        self._health = health
        self._sessions = sessions
        self._load = ProcessLoad()
        self._started = int(context.clock.wall() * 1000)
        self._version = _version()
        self._leaving = self._been_ready = self._renewed = self._had_namesake = False
        self._soon = asyncio.Event()

    async def run(self) -> None:
        """Send heartbeats as long as the gateway lives."""
        self._load.start()
        try:
            while True:
                self._soon.clear()
                try:
                    await self.run_once()
                except TransportError as error:
                    log.info("cannot renew the lease of this instance: %s", error)
                except Exception:
                    # A heartbeat that has ended would make this instance count as lost.
                    log.exception("cannot renew the lease of this instance")
                try:
                    async with asyncio.timeout(self._context.settings.instance_interval):
                        await self._soon.wait()
                except TimeoutError:
                    pass
        finally:
            self._load.stop()

    async def run_once(self) -> None:
        """Send one heartbeat.

        Raises:
            Unavailable, Refused: the registry did not take it.
        """
        self._note(await self._registry.renew(self._context.life, self.record()))

    def drain_begun(self) -> None:
        """Say now that the instance drains."""
        self._leaving = True
        self._soon.set()

    async def leave(self) -> None:
        """End the lease. If Redis is down, it ends by itself."""
        if not self._renewed:
            return
        try:
            async with asyncio.timeout(self._context.settings.probe_timeout):
                await self._registry.leave(self._context.life)
        except (TransportError, TimeoutError) as error:
            log.info("cannot leave the registry of instances; the lease ends by itself: %s", error)

    def record(self) -> InstanceRecord:
        """Return what this instance says of itself now."""
        load = self._load.read()
        state = instance_state(self._health, leaving=self._leaving, been_ready=self._been_ready)
        self._been_ready = self._been_ready or state is InstanceState.READY
        users = {session.principal.user for session in self._sessions.values() if session.principal is not None}
        return InstanceRecord(
            name=self._context.instance,
            version=self._version,
            format=FORMAT,
            host=socket.gethostname(),
            pid=os.getpid(),
            started=self._started,
            state=state,
            reason=self._health.most_severe or "",
            connections=len(self._sessions),
            users=len(users),
            cpu=load.cpu,
            memory=load.memory,
            lag=load.lag,
        )

    def _note(self, renewal: Renewal) -> None:
        if self._renewed and not renewal.continuous:
            self._context.counters["instance.expired"] += 1
            log.warning("the lease of this instance had ended: it was paused, or Redis was down or lost its data")
        if renewal.namesakes and not self._had_namesake:
            log.warning(
                "another running instance is named %s too: give each its own WEBUI_INSTANCE", self._context.instance
            )
        self._renewed, self._had_namesake = True, bool(renewal.namesakes)


def instance_state(health: HealthStatus, *, leaving: bool, been_ready: bool) -> InstanceState:
    """Return what an instance can do. No I/O.

    Args:
        health: what is wrong with Redis.
        leaving: whether the instance drains.
        been_ready: whether it was ready before.
    """
    if leaving:
        return InstanceState.DRAINING
    if health.most_severe is None:
        return InstanceState.READY
    if not been_ready and Degradation.LOST in health:
        return InstanceState.STARTING
    return InstanceState.READ_ONLY if health.read_only else InstanceState.DEGRADED


def _version() -> str:
    try:
        return importlib.metadata.version(_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
