"""Recovery of channels: a channel that has missed something is read once for all its sessions, which notice nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from eventbus.backends.subscription import Subscriber
from eventbus.errors import InvalidRecord, TransportError
from eventbus.flow.backoff import ceiling, jitter
from eventbus.protocol.cursor import Position
from eventbus.protocol.formats import FORMAT
from eventbus.protocol.history import History
from eventbus.protocol.recovery import Resumption
from webui_adapter.channels.channel import Channel
from webui_adapter.channels.history_reader import SNAPSHOT_ONLY, HistoryRange, HistoryReader
from webui_adapter.channels.hub import Hub
from webui_adapter.channels.redelivery import RedeliveryScheduler
from webui_adapter.context import GatewayContext

__all__ = ["PAUSE_MAX", "ChannelRecovery", "WaitingSessions"]

log = logging.getLogger(__name__)

_PAUSE_MIN: Final = 0.1
PAUSE_MAX: Final = 2.0
"""The longest pause between two tries to read, in seconds."""
_RECOVERY_TIMEOUT = 10.0


class WaitingSessions(Protocol):
    """The sessions that subscribed while their channel was not live."""

    def first_range(self, channel: Channel) -> HistoryRange:
        """Return how far back to read a channel that is new here.

        Args:
            channel: The channel.
        """

    def channel_recovered(self, channel: Channel, history: History | None, read: HistoryRange) -> None:
        """Serve the sessions of a channel that has become live.

        Args:
            channel: The channel.
            history: The reading that recovered it; None if none was needed.
            read: The range of that reading. It serves a session that needs the same.
        """


class ChannelRecovery:
    """Recovers the channels of one gateway.

    Attributes:
        disconnects: How often the subscription was broken. A reading from before does not show what was lost since.
    """

    def __init__(
        self,
        context: GatewayContext,
        hub: Hub,
        subscriber: Subscriber,
        history_reader: HistoryReader,
        redelivery: RedeliveryScheduler | None,
        changed: Callable[[], None],
        waiting_sessions: WaitingSessions,
    ) -> None:
        """Begin without a recovery.

        Args:
            context: The gateway's settings and clock.
            hub: The channels.
            subscriber: Subscribes to channels in Redis.
            history_reader: Reads a channel's history.
            redelivery: The pending events of users; None where there are none.
            changed: Called when sessions have something to write.
            waiting_sessions: The sessions that wait for their channel.
        """
        self._hub = hub
        self._subscriber = subscriber
        self._history_reader = history_reader
        self._clock = context.clock
        self._counters = context.counters
        self._waiting_sessions = waiting_sessions
        self._changed = changed
        self._redelivery = redelivery
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._needs_resubscribe: set[str] = set()
        # Channel with events of a newer version -> when to read it again.
        self._newer_format_pauses: dict[str, float] = {}
        self._newer_format_pause = context.settings.newer_format_interval
        self.disconnects = 0

    def suspend_all(self) -> None:
        """Suspend every channel: the subscription is broken."""
        self.disconnects += 1
        for channel in self._hub.channels.values():
            self._hub.suspend(channel)

    def recover_all(self) -> None:
        """Recover every channel: the subscription is restored."""
        self.suspend_all()
        for channel in list(self._hub.channels.values()):
            self.recover(channel)

    def recover(self, channel: Channel) -> None:
        """Begin to recover a channel, unless that is under way.

        Args:
            channel: The channel.
        """
        name = channel.name
        if name not in self._under_way:
            task = asyncio.create_task(self._recover(channel))
            self._under_way[name] = task
            task.add_done_callback(lambda done: self._recovery_ended(name, done))

    def resync(self, channel: Channel, found: Position) -> None:
        """Recover a channel whose position in Redis is another one, without a publication that explains it.

        Args:
            channel: The channel.
            found: The position in Redis. One without an epoch means that Redis has forgotten the channel.
        """
        log.info("position of channel %s differs: %s in Redis, %s here", channel.name, found, channel.position)
        if found.epoch:
            # The server may have lost the subscription as well.
            self._needs_resubscribe.add(channel.name)
            self._hub.suspend(channel)
            self.recover(channel)
        else:
            self._hub.channel_expired(channel)
            self._changed()

    async def wait_until_recovered(self) -> None:
        """Wait until the channels that are being recovered now are live, but no longer than ten seconds."""
        if self._under_way:
            await asyncio.wait(list(self._under_way.values()), timeout=_RECOVERY_TIMEOUT)

    def cancel(self) -> None:
        """Cancel every recovery."""
        for task in self._under_way.values():
            task.cancel()

    def forget(self, name: str) -> None:
        """Cancel the recovery of a channel that no session reads.

        Args:
            name: The channel.
        """
        self._needs_resubscribe.discard(name)
        self._newer_format_pauses.pop(name, None)
        task = self._under_way.pop(name, None)
        if task is not None:
            task.cancel()

    async def wait_until_live(self, channel: Channel) -> None:
        """Wait until a channel's recovery has ended. The channel may not be live then, or not for long.

        Args:
            channel: The channel.
        """
        self.recover(channel)
        await asyncio.wait([self._under_way[channel.name]])
        if not channel.live and self._hub.channels.get(channel.name) is channel:
            await asyncio.sleep(jitter(PAUSE_MAX))

    async def _fork(self, channel: Channel) -> None:
        """End an epoch whose data went back in time. Pages that return later then get a gap too."""
        if channel.epoch and await self._history_reader.fork(channel.name, channel.epoch):
            self._counters["rollback.channel"] += 1
            log.warning("data of channel %s went back in time; its epoch %s ends", channel.name, channel.epoch)
        channel.went_back = False

    def _recovery_ended(self, name: str, task: asyncio.Task[None]) -> None:
        if self._under_way.get(name) is task:
            del self._under_way[name]
        if task.cancelled():
            return
        channel = self._hub.channels.get(name)
        if task.exception() is not None:
            log.error("cannot recover channel %s", name, exc_info=task.exception())
        elif channel is not None and not channel.live:
            self.recover(channel)  # it was suspended again after the task's last step

    async def _recover(self, channel: Channel) -> None:
        failures = 0
        history, read = None, SNAPSHOT_ONLY
        await self._pause_after_newer_format(channel.name)
        while not channel.live:
            disconnects = self.disconnects
            try:
                if channel.position is None or channel.name in self._needs_resubscribe:
                    await self._subscriber.subscribe(channel.name)
                    self._needs_resubscribe.discard(channel.name)
                # A known channel reads what it has missed. A new one reads what its first session needs.
                known = channel.position is not None
                if channel.went_back:
                    await self._fork(channel)
                read = HistoryRange(channel.offset, None) if known else self._waiting_sessions.first_range(channel)
                history = await self._history_reader.read(channel.name, read)
            except (TransportError, InvalidRecord) as error:
                log.info("cannot read channel %s yet: %s", channel.name, error)
                await asyncio.sleep(jitter(ceiling(failures, _PAUSE_MIN, PAUSE_MAX)))
                failures += 1
                continue
            if disconnects != self.disconnects:
                continue
            if history.position.epoch == channel.epoch and history.position.offset < channel.offset:
                # Redis has less than the sessions have received.
                channel.went_back = True
                continue
            resumption = self._hub.recover(channel, history, self._clock.server_ms())
            if resumption is not None:
                self._was_read(channel, history, resumption)
        self._waiting_sessions.channel_recovered(channel, history, read)
        self._changed()

    def _was_read(self, channel: Channel, history: History, resumption: Resumption) -> None:
        if self._redelivery is not None:
            self._redelivery.channel_read(channel.name, pending=history.has_pending)
        if history.format > FORMAT:
            self._newer_format_pauses[channel.name] = self._clock.now() + self._newer_format_pause
        if resumption.gap is not None:
            for session in self._hub.sessions_of(channel):
                session.subscriptions.restart_after_gap(channel.name, resumption)

    async def _pause_after_newer_format(self, name: str) -> None:
        """Each event of a newer version suspends the channel. One gap for several of them is enough."""
        again = self._newer_format_pauses.pop(name, None)
        if again is not None:
            await asyncio.sleep(max(0.0, again - self._clock.now()))
