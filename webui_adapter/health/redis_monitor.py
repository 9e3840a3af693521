"""The monitor of Redis: it publishes a canary, waits until the canary arrives, and draws conclusions.

A connection that answers pings proves little. A server may accept commands and deliver nothing, or deliver and accept
no writes. So each instance publishes a canary through an ordinary connection, and must receive it through pub/sub.
After a loss, the instance is degraded until it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from dataclasses import dataclass
from typing import Final

from eventbus.backends.ports import IS_REPLICA, Probe
from eventbus.errors import NotPermitted, TransportError
from webui_adapter.channels.channel_recovery import ChannelRecovery
from webui_adapter.channels.hub import Hub
from webui_adapter.context import BackendPorts, GatewayContext
from webui_adapter.health.status import Degradation, HealthStatus

__all__ = ["STARTING", "RedisMonitor"]

log = logging.getLogger(__name__)

STARTING: Final = "not connected to Redis yet"
"""The reason until the first canary has arrived."""

_LOST = "the gateway has lost Redis"
_NOT_RECEIVING = "events are published but do not arrive"
_UNREACHABLE = "Redis does not answer"
_DENIES = "the user of Redis lacks the right to "
_REFUSES = "Redis refuses writes: "
_LAST_WAIT = 0.01  # seconds: a busy loop may not have read the canary from the socket yet
_FAILURES_MAX = 16
_UNHEALTHY = (Degradation.NOT_RECEIVING, Degradation.LOST, Degradation.UNREACHABLE)


@dataclass(frozen=True, slots=True)
class _RoundTrip:
    """The result of a canary: whether it arrived, and why Redis refused a write, if it did."""

    arrived: bool
    refused: str | None


class RedisMonitor:
    """Monitors Redis for one gateway.

    Attributes:
        health: What is wrong with Redis.
    """

    def __init__(
        self,
        context: GatewayContext,
        health: HealthStatus,
        ports: BackendPorts,
        channel_recovery: ChannelRecovery,
        hub: Hub,
    ) -> None:
        """Begin degraded, until the first canary arrives.

        Args:
            context: The gateway's settings, counters and background tasks.
            health: Receives the conclusions.
            ports: The subscriber, and the probe. Without a probe (a broker in this process) a subscription is enough.
            channel_recovery: Recovers the channels after a loss.
            hub: The channels.
        """
        self._settings = context.settings
        self._instance = context.instance
        self._counters = context.counters
        self._spawn = context.spawn
        self._subscriber = ports.subscriber
        self._probe = ports.probe
        self._reader = ports.reader
        self._first_renewal = True
        self._channel_recovery = channel_recovery
        self._hub = hub
        self.health = health
        self._subscribed = asyncio.Event()
        self._soon = asyncio.Event()
        self._disconnects = 0
        self._undelivered = 0
        self._unreachable = 0
        self._waiting: dict[str, asyncio.Future[None]] = {}

    # --- the subscriber's reports -------------------------------------------------------------------------

    def lost(self, reason: str) -> None:
        """Suspend all channels. See ``Listener``.

        Args:
            reason: Why the subscription is lost.
        """
        self._disconnects += 1
        self._subscribed.clear()
        self._counters["redis.lost"] += 1
        log.warning("Redis is lost: %s; the sessions stay", reason)
        self._channel_recovery.suspend_all()
        self.health.begin(Degradation.LOST, _LOST)

    def restored(self) -> None:
        """Recover all channels. The instance stays degraded until a canary arrives. See ``Listener``."""
        self._channel_recovery.recover_all()
        if self._probe is None:
            self._spawn(self._arrived())
        self._soon.set()
        self._subscribed.set()

    def canary_received(self, text: str) -> None:
        """Note a canary. See ``Listener``.

        Args:
            text: The text of the canary.
        """
        back = self._waiting.get(text)
        if back is not None and not back.done():
            back.set_result(None)

    # --- canaries -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Publish canaries as long as the gateway lives; immediately when a subscription is new."""
        while self._probe is not None:
            await self._subscribed.wait()
            self._soon.clear()
            try:
                await self._check(self._probe)
            except Exception:
                # A monitor that has ended would never correct its last report.
                log.exception("cannot check Redis")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.probe_interval):
                    await self._soon.wait()

    async def caught_up(self) -> bool:
        """Wait until every publication from before this call has been delivered.

        Returns:
            False if that cannot be known.
        """
        if self._probe is None:
            await asyncio.sleep(0)
            return True
        disconnects = self._disconnects
        try:
            trip = await self._round_trip(self._probe)
        except TransportError:
            return False
        return trip.arrived and disconnects == self._disconnects

    async def aclose(self) -> None:
        """Close the connections."""
        if self._probe is not None:
            await self._probe.aclose()

    async def _check(self, probe: Probe) -> None:
        disconnects, arrivals = self._disconnects, self._hub.events
        try:
            trip = await self._round_trip(probe)
        except TransportError as error:
            if disconnects == self._disconnects:
                self._not_reached(error)
            await self._renew()  # one shard of a cluster may be down, and the others are not
            return
        if disconnects != self._disconnects:
            return  # the canary may be lost with the connection: that proves nothing
        self._unreachable = 0
        self._note_writes(trip.refused)
        if trip.arrived:
            await self._renew()
            await self._arrived()
        else:
            self._not_arrived(silent=arrivals == self._hub.events)

    async def _renew(self) -> None:
        """Keep the entry of this gateway among the voters fresh. Another timeline means that data went back."""
        try:
            changed = await self._reader.renew()
        except TransportError as error:
            log.info("cannot renew the entry among the voters: %s", error)
            return
        if changed and not self._first_renewal:
            log.warning("the data of Redis have another timeline; all channels are read again")
            self._channel_recovery.recover_all()
        self._first_renewal = False

    async def _round_trip(self, probe: Probe) -> _RoundTrip:
        """Publish a canary and wait for it. Raise Unavailable or Refused."""
        readings = self._hub.overlaps.readings()
        text = f"{self._instance} {secrets.token_hex(8)}"
        back = self._waiting[text] = asyncio.get_running_loop().create_future()
        try:
            refused = await probe.publish_canary(text, self._instance)
            for patience in (self._settings.probe_timeout, _LAST_WAIT):
                if not back.done():
                    await asyncio.wait([back], timeout=patience)
            if back.done():
                self._hub.overlaps.end(readings, self._hub.channels)
            return _RoundTrip(back.done(), refused)
        finally:
            del self._waiting[text]

    # --- conclusions --------------------------------------------------------------------------------------

    async def _arrived(self) -> None:
        """Report a healthy Redis once all channels are recovered, unless Redis is lost again by then."""
        self._undelivered = 0
        if not any(trouble in self.health for trouble in _UNHEALTHY):
            return
        disconnects = self._disconnects
        if Degradation.NOT_RECEIVING in self.health:
            self._channel_recovery.recover_all()
        await self._channel_recovery.wait_until_recovered()
        if disconnects == self._disconnects:
            log.info("Redis is healthy: publications arrive")
            self.health.end(*_UNHEALTHY)

    def _not_arrived(self, *, silent: bool) -> None:
        """Reconnect if nothing arrives: another connection may help. A connection that is only slow stays."""
        self._undelivered += 1
        self._counters["probe.undelivered"] += 1
        self.health.begin(Degradation.NOT_RECEIVING, _NOT_RECEIVING)
        failures = self._undelivered
        # Ever more rarely: each reconnection reads the history of every channel.
        again = failures & (failures - 1) == 0 or failures % _FAILURES_MAX == 0
        if again and (silent or failures > 1):
            self._subscriber.reconnect(_NOT_RECEIVING)

    def _not_reached(self, error: TransportError) -> None:
        self._unreachable += 1
        self._counters["probe.unreachable"] += 1
        log.warning("cannot publish a canary: %s", error)
        if isinstance(error, NotPermitted):
            # More useful than "lost", which is more severe: no retry helps.
            kind = Degradation.LOST if Degradation.LOST in self.health else Degradation.UNREACHABLE
            self.health.begin(kind, f"{_DENIES}{error.right}")
        # One failure may be an idle connection that the server has closed.
        elif self._unreachable > 1:
            slots = f" for slots {error.slots}" if error.slots else ""
            self.health.begin(Degradation.UNREACHABLE, f"{_UNREACHABLE}{slots}")
            if slots and Degradation.LOST in self.health and self._subscribed.is_set():
                # Another node sends publications again. Until that one answers too, some channels are not recovered.
                self.health.begin(Degradation.LOST, f"{_UNREACHABLE}{slots}")

    def _note_writes(self, refused: str | None) -> None:
        if refused is None:
            self.health.end(Degradation.READ_ONLY)
            return
        self._counters["probe.refused"] += 1
        self.health.begin(Degradation.READ_ONLY, f"{_REFUSES}{refused}")
        if refused == IS_REPLICA:
            # A replica still answers pings and passes on what its master publishes, until it is detached.
            self._subscriber.reconnect(f"{_REFUSES}{refused}")
