"""The command ``subscribe``: its limits, and the authoriser's answer for collections."""

from __future__ import annotations

import asyncio
import logging

from eventbus.protocol.topics import channel_of
from webui_adapter.access.authoriser import Authoriser
from webui_adapter.channels.session_recovery import SessionRecovery
from webui_adapter.context import GatewayContext
from webui_adapter.errors import CommandRefused
from webui_adapter.protocol.commands import Subscribe
from webui_adapter.session.session import Session

__all__ = ["SubscribeHandler"]

log = logging.getLogger(__name__)

_AUTHORISER_TIMEOUT = 5.0


class SubscribeHandler:
    """Carries out ``subscribe`` commands, and refuses those that the user may not read.

    Args:
        context: the shared context.
        authoriser: decides about collections.
        session_recovery: brings the session up to date.
    """

    def __init__(
        self,
        context: GatewayContext,
        authoriser: Authoriser,
        session_recovery: SessionRecovery,
    ) -> None:
        self._settings = context.settings
        self._spawn = context.spawn
        self._flush = context.flush
        self._authoriser = authoriser
        self._session_recovery = session_recovery

    def subscribe(self, session: Session, command: Subscribe) -> None:
        """Subscribe, or ask the authoriser first. A refusal is sent to the client.

        Args:
            session: an open session.
            command: the command.
        """
        kind, _, id_ = channel_of(command.topic).partition(":")
        try:
            self._check(session, command, kind, id_)
        except CommandRefused as error:
            error.ref, error.topic = command.ref, command.topic
            session.refuse(error)
            return
        if kind == "collection":
            session.subscriptions.awaiting_authorisation.append(command)
            self._spawn(self._subscribe_if_allowed(session, command, id_))
        else:
            self._session_recovery.subscribe(session, command)

    def _check(self, session: Session, command: Subscribe, kind: str, id_: str) -> None:
        assert session.principal is not None
        topics, limit = session.subscriptions.topics(), self._settings.max_topics
        if len(topics) >= limit and command.topic not in topics:
            raise CommandRefused("too_many_topics", f"a session has at most {limit} topics", limit=limit)
        if kind == "user" and id_ != session.principal.user:
            raise CommandRefused("forbidden", "only the user may read this channel", field="topic")

    async def _subscribe_if_allowed(self, session: Session, command: Subscribe, collection: str) -> None:
        allowed = await self._allowed(session, collection)
        subscriptions = session.subscriptions
        if not any(waiting is command for waiting in subscriptions.awaiting_authorisation):
            return  # The client has unsubscribed, or the session has ended.
        subscriptions.awaiting_authorisation = [
            waiting for waiting in subscriptions.awaiting_authorisation if waiting is not command
        ]
        if allowed:
            self._session_recovery.subscribe(session, command)
        else:
            message = f"this user may not read collection {collection}"
            session.refuse(CommandRefused("forbidden", message, field="topic", topic=command.topic, ref=command.ref))
        self._flush()

    def recheck(self, session: Session) -> None:
        """Ask the authoriser again about every collection that the session reads: its token is a new one.

        A refused collection ends with an error ``forbidden`` for each of its patterns. Until the authoriser has
        answered, which takes at most five seconds, the session receives events of the collection.

        Args:
            session: an open session.
        """
        for channel in session.subscriptions.channels:
            kind, _, id_ = channel.partition(":")
            if kind == "collection":
                self._spawn(self._end_unless_allowed(session, channel, id_))

    async def _end_unless_allowed(self, session: Session, channel: str, collection: str) -> None:
        if await self._allowed(session, collection):
            return
        subscription = session.subscriptions.channels.get(channel)
        if subscription is None:
            return  # The client has unsubscribed, or the session has ended.
        message = f"this user may no longer read collection {collection}"
        # Without their last pattern, the queued commands would begin.
        queued, subscription.queued_commands = subscription.queued_commands, ()
        for pattern in subscription.patterns:
            self._session_recovery.unsubscribe(session, pattern)
            session.refuse(CommandRefused("forbidden", message, field="topic", topic=pattern))
        for command in queued:
            session.refuse(CommandRefused("forbidden", message, field="topic", topic=command.topic, ref=command.ref))
        self._flush()

    async def _allowed(self, session: Session, collection: str) -> bool:
        assert session.principal is not None
        try:
            answer = self._authoriser(session.principal, collection)
            return answer if isinstance(answer, bool) else await asyncio.wait_for(answer, _AUTHORISER_TIMEOUT)
        except Exception:
            # The authoriser is code of the application: any exception means no.
            log.exception("cannot authorise collection %s: the authoriser failed", collection)
            return False
