"""The gateway's watch over Redis: a probe that must come back, and what is concluded from it.

A connection that answers pings proves little: a server may take commands and deliver nothing, or deliver and take no
writes. So each instance publishes a probe through an ordinary connection, and must hear it through pub/sub. Until it
has, after a loss, the instance is not well again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from eventbus.backends.ports import Probe
from eventbus.errors import TransportError
from webui_adapter.channels.channel_recovery import ChannelRecovery
from webui_adapter.context import BackendPorts, GatewayContext
from webui_adapter.health.status import Degradation, HealthStatus

__all__ = ["STARTING", "RedisMonitor"]

log = logging.getLogger(__name__)

STARTING: Final = "not connected to Redis yet"
"""The reason until the first canary has arrived."""

_LOST = "the gateway has lost Redis"
_NOT_RECEIVING = "events are published but do not arrive"
_UNREACHABLE = "Redis does not answer"
_REFUSES = "Redis refuses writes: "
_ONE_MORE_LOOK = 0.01  # seconds: a loop that was busy has not looked yet whether something came
_FAILURES_MAX = 16
_UNWELL = (Degradation.NOT_RECEIVING, Degradation.LOST, Degradation.UNREACHABLE)


@dataclass(frozen=True, slots=True)
class _Echo:
    """What became of a probe: whether it was heard, and why Redis refused to write, if it did."""

    heard: bool
    refused: str | None


class RedisMonitor:
    """Works for one gateway.

    ``arrivals`` returns how many events have arrived so far.

    Attributes:
        health: what is wrong.
    """

    def __init__(
        self,
        context: GatewayContext,
        health: HealthStatus,
        ports: BackendPorts,
        channel_recovery: ChannelRecovery,
        arrivals: Callable[[], int],
    ) -> None:
        """Without a probe (a broker in this process), to be subscribed is to be well."""
        self._settings = context.settings
        self._instance = context.instance
        self._counters = context.counters
        self._spawn = context.spawn
        self._subscriber = ports.subscriber
        self._probe = ports.probe
        self._channel_recovery = channel_recovery
        self._arrivals = arrivals
        self.health = health
        self._subscribed = asyncio.Event()
        self._soon = asyncio.Event()
        self._disconnects = 0
        self._undelivered = 0
        self._unreachable = 0
        self._waiting: dict[str, asyncio.Future[None]] = {}

    # --- what is heard ---------------------------------------------------------------------------------------

    def lost(self, reason: str) -> None:
        """See ``Listener``."""
        self._disconnects += 1
        self._subscribed.clear()
        self._counters["redis.lost"] += 1
        log.warning("Redis is lost: %s; the sessions stay", reason)
        self._channel_recovery.suspend_all()
        self.health.begin(Degradation.LOST, _LOST)

    def restored(self) -> None:
        """See ``Listener``. That it is subscribed is not said to anybody before a probe has proved it."""
        self._channel_recovery.recover_all()
        if self._probe is None:
            self._spawn(self._heard())
        self._soon.set()
        self._subscribed.set()

    def canary_received(self, text: str) -> None:
        """See ``Listener``."""
        back = self._waiting.get(text)
        if back is not None and not back.done():
            back.set_result(None)

    # --- what is asked ---------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Probe for ever, while there is a subscription to hear it; at once when there is a new one."""
        while self._probe is not None:
            await self._subscribed.wait()
            self._soon.clear()
            try:
                await self._look(self._probe)
            except Exception:
                # A watch that has ended would leave its last word standing for ever.
                log.exception("the watch over Redis failed")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.probe_interval):
                    await self._soon.wait()

    async def caught_up(self) -> bool:
        """Wait until what was published before this call has been handed over; False if that cannot be known."""
        if self._probe is None:
            await asyncio.sleep(0)
            return True
        disconnects = self._disconnects
        try:
            echo = await self._echo(self._probe)
        except TransportError:
            return False
        return echo.heard and disconnects == self._disconnects

    async def aclose(self) -> None:
        """Give up connections."""
        if self._probe is not None:
            await self._probe.aclose()

    async def _look(self, probe: Probe) -> None:
        disconnects, arrivals = self._disconnects, self._arrivals()
        try:
            echo = await self._echo(probe)
        except TransportError as error:
            if disconnects == self._disconnects:
                self._not_reached(error)
            return
        if disconnects != self._disconnects:
            return  # it may have gone with the connection: nothing can be concluded
        self._unreachable = 0
        self._take_writes(echo.refused)
        if echo.heard:
            await self._heard()
        else:
            self._not_heard(silent=arrivals == self._arrivals())

    async def _echo(self, probe: Probe) -> _Echo:
        """Publish a probe and wait for it. Raises Unavailable or Refused."""
        text = f"{self._instance} {secrets.token_hex(8)}"
        back = self._waiting[text] = asyncio.get_running_loop().create_future()
        try:
            refused = await probe.publish_canary(text, self._instance)
            for patience in (self._settings.probe_timeout, _ONE_MORE_LOOK):
                if not back.done():
                    await asyncio.wait([back], timeout=patience)
            return _Echo(back.done(), refused)
        finally:
            del self._waiting[text]

    # --- what is concluded -----------------------------------------------------------------------------------

    async def _heard(self) -> None:
        """All is well, as soon as what was missed has been read, unless Redis is lost again by then."""
        self._undelivered = 0
        if not any(trouble in self.health for trouble in _UNWELL):
            return
        disconnects = self._disconnects
        if Degradation.NOT_RECEIVING in self.health:
            self._channel_recovery.recover_all()
        await self._channel_recovery.wait_until_recovered()
        if disconnects == self._disconnects:
            log.info("Redis is subscribed, and what is published arrives")
            self.health.end(*_UNWELL)

    def _not_heard(self, *, silent: bool) -> None:
        """Connected, and deaf. Another connection may help; one that is merely behind would lose its place by it."""
        self._undelivered += 1
        self._counters["probe.undelivered"] += 1
        self.health.begin(Degradation.NOT_RECEIVING, _NOT_RECEIVING)
        failures = self._undelivered
        # Ever more rarely: each reconnection reads what every channel has missed.
        again = failures & (failures - 1) == 0 or failures % _FAILURES_MAX == 0
        if again and (silent or failures > 1):
            self._subscriber.reconnect(_NOT_RECEIVING)

    def _not_reached(self, error: TransportError) -> None:
        self._unreachable += 1
        self._counters["probe.unreachable"] += 1
        log.warning("the probe could not be published: %s", error)
        # Once may be a connection that the server had ended while nobody used it.
        if self._unreachable > 1:
            self.health.begin(Degradation.UNREACHABLE, _UNREACHABLE)

    def _take_writes(self, refused: str | None) -> None:
        if refused is None:
            self.health.end(Degradation.READ_ONLY)
            return
        self._counters["probe.refused"] += 1
        self.health.begin(Degradation.READ_ONLY, f"{_REFUSES}{refused}")
