"""Recovery of sessions: a session that subscribes gets what it has missed, joined with the live events."""

from __future__ import annotations

import logging
from collections.abc import Callable

from eventbus.backends.subscription import Subscriber
from eventbus.protocol.history import History
from eventbus.protocol.topics import channel_of
from webui_adapter.channels.channel import Channel
from webui_adapter.channels.channel_recovery import ChannelRecovery
from webui_adapter.channels.history_reader import SNAPSHOT_ONLY, HistoryRange, HistoryReader, range_for
from webui_adapter.channels.history_replay import HistoryReplay, Target
from webui_adapter.channels.hub import Hub
from webui_adapter.channels.redelivery import RedeliveryScheduler
from webui_adapter.context import GatewayContext
from webui_adapter.protocol.commands import Subscribe
from webui_adapter.session.channel_subscription import ChannelSubscription
from webui_adapter.session.session import Session

__all__ = ["SessionRecovery"]

log = logging.getLogger(__name__)


class SessionRecovery:
    """Begins and ends the subscriptions of one gateway's sessions.

    Attributes:
        channel_recovery: The recovery of channels. A session waits for its channel's recovery, and is served from it.
    """

    def __init__(
        self,
        context: GatewayContext,
        hub: Hub,
        subscriber: Subscriber,
        history_reader: HistoryReader,
        redelivery: RedeliveryScheduler | None,
        changed: Callable[[], None],
    ) -> None:
        """Begin without a subscription.

        Args:
            context: The gateway's clock and background tasks.
            hub: The channels.
            subscriber: Subscribes to channels in Redis.
            history_reader: Reads a channel's history.
            redelivery: The pending events of users; None where there are none.
            changed: Called when sessions have something to write.
        """
        self._hub = hub
        self._subscriber = subscriber
        self._spawn = context.spawn
        self._changed = changed
        self._redelivery = redelivery
        # Sessions that subscribed while their channel was not live.
        self._waiting_sessions: dict[str, list[tuple[Session, ChannelSubscription]]] = {}
        self.channel_recovery = ChannelRecovery(context, hub, subscriber, history_reader, redelivery, changed, self)
        self._replays = HistoryReplay(
            hub, history_reader, self.channel_recovery, redelivery, context.clock, self._subscribe_queued
        )

    def subscribe(self, session: Session, command: Subscribe) -> None:
        """Begin a subscription. The commands of one channel are served one after another.

        Args:
            session: The session.
            command: The subscribe command, which is authorised.
        """
        name = channel_of(command.topic)
        subscription = session.subscriptions.channels.get(name)
        if subscription is not None and subscription.recovery is not None:
            subscription.queued_commands += (command,)
            return
        known = self._hub.channels.get(name)
        subscription = session.subscriptions.add(command, known.offset if known else 0)
        channel = self._hub.join(name, session)
        if channel.live:
            self._begin(Target(session, channel, subscription))
        else:
            self._waiting_sessions.setdefault(name, []).append((session, subscription))
            self.channel_recovery.recover(channel)

    def _begin(self, target: Target, history: History | None = None) -> None:
        if not self._replays.replay_now(target, history):
            self._spawn(self._replay(target))

    async def _replay(self, target: Target) -> None:
        await self._replays.replay(target)
        self._changed()

    def _subscribe_queued(self, session: Session, subscription: ChannelSubscription) -> None:
        if subscription.queued_commands:
            command, *rest = subscription.queued_commands
            subscription.queued_commands = tuple(rest)
            self.subscribe(session, command)

    def recover_behind(self) -> None:
        """Begin to read for the sessions whose send queue overflowed. They get it when they accept data again."""
        behind, self._hub.behind[:] = self._hub.behind[:], ()
        for session, name in behind:
            subscription = session.subscriptions.channels.get(name)
            channel = self._hub.channels.get(name)
            if subscription is not None and channel is not None and subscription.recovery is not None:
                self._spawn(self._replay(Target(session, channel, subscription)))

    def unsubscribe(self, session: Session, pattern: str) -> None:
        """End a subscription. If it was the channel's last one, the queued commands of the channel begin.

        Args:
            session: The session.
            pattern: The topic, as subscribed.
        """
        subscription = session.subscriptions.remove(pattern)
        if subscription is not None:
            self.leave(channel_of(pattern), session)
            for command in subscription.queued_commands:
                self.subscribe(session, command)

    def leave(self, name: str, session: Session) -> None:
        """Take a session out of a channel. The last one closes the channel.

        Args:
            name: The channel.
            session: The session.
        """
        session.subscriptions.drop(name)
        unused = self._hub.leave(name, session)
        if unused is not None:
            self._hub.remove(unused)
            if self._redelivery is not None:
                self._redelivery.forget(name)
            self._waiting_sessions.pop(name, None)
            self._subscriber.unsubscribe(name)
            self.channel_recovery.forget(name)

    # --- sessions that wait for their channel ----------------------------------------------------------------

    def first_range(self, channel: Channel) -> HistoryRange:
        """Return how far back to read a channel. A returning session is most often the only one that waits.

        Args:
            channel: The channel.

        Returns:
            The range that the first session with a past needs.
        """
        for session, subscription in self._waiting_sessions.get(channel.name, ()):
            if subscription.recovery is not None and subscription.recovery.after is not None:
                return range_for(session, subscription)
        return SNAPSHOT_ONLY

    def channel_recovered(self, channel: Channel, history: History | None, read: HistoryRange) -> None:
        """Serve the sessions that waited for a channel.

        Args:
            channel: The channel, which is live.
            history: The reading that recovered it.
            read: The range of that reading.
        """
        for session, subscription in self._waiting_sessions.pop(channel.name, ()):
            fits = read.after is not None and range_for(session, subscription) == read
            self._begin(Target(session, channel, subscription), history if fits else None)
