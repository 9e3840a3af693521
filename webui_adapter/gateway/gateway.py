"""The gateway: its parts put together, and what edges ask of it."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from eventbus.protocol.cursor import Cursor
from webui_adapter.channels.history_reader import HistoryReader
from webui_adapter.channels.hub import Hub
from webui_adapter.channels.redelivery import RedeliveryScheduler
from webui_adapter.channels.session_recovery import SessionRecovery
from webui_adapter.context import BackendPorts, GatewayContext
from webui_adapter.errors import CommandRefused
from webui_adapter.gateway.authentication import AccessControl, Authentication
from webui_adapter.gateway.background_tasks import BackgroundTasks
from webui_adapter.gateway.deadlines import SessionDeadlines
from webui_adapter.gateway.draining import Drain
from webui_adapter.gateway.listener import SubscriptionListener, TurnEnd
from webui_adapter.gateway.operations import OperationCommand, OperationService
from webui_adapter.gateway.subscribe import SubscribeHandler
from webui_adapter.health.idle_channel_check import IdleChannelCheck
from webui_adapter.health.redis_monitor import RedisMonitor
from webui_adapter.maintenance.maintenance import Maintenance
from webui_adapter.protocol.close_codes import CloseCode
from webui_adapter.protocol.commands import (
    Ack,
    Auth,
    Cancel,
    Command,
    ListOperations,
    Ping,
    ShowOperation,
    Subscribe,
    Unsubscribe,
)
from webui_adapter.session.connection import Encoder, Transport
from webui_adapter.session.output import Output
from webui_adapter.session.session import Session
from webui_adapter.session.states import State
from webui_adapter.session.subscriptions import Subscriptions

__all__ = ["EventParts", "Gateway", "GatewayParts"]

log = logging.getLogger(__name__)

# Close codes that are counted by their number: a peer may send any, and each would be a time series of its own.
_CODES = frozenset({*CloseCode, 1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1011, 1012})


@dataclass(frozen=True, kw_only=True, slots=True)
class EventParts:
    """The parts through which events reach the sessions."""

    maintenance: Maintenance
    redelivery: RedeliveryScheduler | None
    history_reader: HistoryReader
    session_recovery: SessionRecovery
    redis_monitor: RedisMonitor
    idle_check: IdleChannelCheck
    turn_end: TurnEnd
    listener: SubscriptionListener


@dataclass(frozen=True, kw_only=True, slots=True)
class GatewayParts:
    """The parts of one gateway, as ``gateway/build.py`` assembles them."""

    context: GatewayContext
    ports: BackendPorts
    tasks: BackgroundTasks
    sessions: dict[str, Session]
    hub: Hub
    access: AccessControl
    drain: Drain
    events: EventParts
    operations: OperationService | None
    deadlines: SessionDeadlines
    subscribe_handler: SubscribeHandler
    authentication: Authentication


class Gateway:
    """One instance. Transports open sessions here and hand over what browsers send.

    Attributes:
        settings: all bounds and choices.
        clock: the time.
        counters: how often something happened; ``http/metrics.py`` lists the names.
        sessions: the open sessions by id.
        hub: the channels.
        tokens: checks tokens.
        connection_limits: bounds per instance and per user.
        rate_limiters: the rates that sessions share.
        drain: the orderly shutdown.
        maintenance: work that one instance does for all of them.
        operations: answers requests about operations; None: this gateway serves none.
        redis_monitor: the health of Redis.
        listener: receives what the subscriber reads.
        latency: of events, from ``emit`` to the sessions.
        flush: writes what sessions have queued.
    """

    def __init__(self, parts: GatewayParts) -> None:
        context, access, events = parts.context, parts.access, parts.events
        self.settings = context.settings
        self.clock = context.clock
        self.counters = context.counters
        self.flush = context.flush
        self.sessions = parts.sessions
        self.hub = parts.hub
        self.tokens = access.tokens
        self.connection_limits = access.connection_limits
        self.rate_limiters = access.rate_limiters
        self.drain = parts.drain
        self.maintenance = events.maintenance
        self.operations = parts.operations
        self.redis_monitor = events.redis_monitor
        self.listener = events.listener
        self.latency = events.turn_end.latency
        self._health = events.redis_monitor.health
        self._ports = parts.ports
        self._tasks = parts.tasks
        self._redelivery = events.redelivery
        self._history_reader = events.history_reader
        self._session_recovery = events.session_recovery
        self._idle_check = events.idle_check
        self._deadlines = parts.deadlines
        self._subscribe_handler = parts.subscribe_handler
        self._authentication = parts.authentication

    # --- life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect to Redis in the background and start the timer."""
        self._tasks.spawn(self._deadlines.run(self.disconnect))
        self._tasks.spawn(self.redis_monitor.run())
        self._tasks.spawn(self._idle_check.run())
        if self._redelivery is not None:
            self._tasks.spawn(self._redelivery.run())
        self.maintenance.start(self._tasks.spawn)
        await self._ports.subscriber.start(self.listener)

    async def aclose(self) -> None:
        """End all sessions, tasks and connections."""
        self.drain.close_all()
        self._session_recovery.channel_recovery.cancel()
        self._history_reader.cancel()
        self._tasks.cancel()
        await self._ports.subscriber.aclose()
        await self.redis_monitor.aclose()
        await self._ports.reader.aclose()

    @property
    def degraded(self) -> str | None:
        """What is wrong with Redis, or None. Pages are told."""
        return self._health.most_severe

    @property
    def read_only(self) -> str | None:
        """Why commands that write are refused, or None."""
        return self._health.read_only

    @property
    def not_ready(self) -> str | None:
        """Why this instance should get no new connections, or None."""
        return "leaving" if self.drain.started else self.degraded

    # --- sessions --------------------------------------------------------------------------------------------

    def connect(self, encoder: Encoder) -> Session:
        """A new session; the caller has asked ``connection_limits.full`` and calls ``attach_transport`` next."""
        output = Output(secrets.token_urlsafe(12), self.settings, encoder, self.hub.dirty, self.counters, self.clock)
        session = Session(output, Subscriptions(output))
        self.sessions[session.id] = session
        self.rate_limiters.connected(session.rate)
        self.connection_limits.connections += 1
        self.counters["connect"] += 1
        return session

    def attach_transport(self, session: Session, line: Transport) -> None:
        """From now on ``line`` writes what the session has to say."""
        session.output.transport = line
        self._deadlines.schedule(session, self.clock.now() + self.settings.auth_deadline)

    def disconnect(self, session: Session, code: int) -> None:
        """The connection is gone."""
        if session.state is State.CLOSED:
            return
        session.enter(State.CLOSED)
        said = session.output.close_code or code
        self.counters[f"disconnect.{int(said) if said in _CODES else 'other'}"] += 1
        self.sessions.pop(session.id, None)
        if not self.sessions:
            self.drain.on_empty()
        session.output.transport = None
        self._deadlines.cancel(session)
        for name in list(session.subscriptions.channels):
            self._session_recovery.leave(name, session)
        session.subscriptions.awaiting_authorisation.clear()
        self.connection_limits.disconnected(session)
        self.rate_limiters.disconnected(session.rate)
        self.connection_limits.connections -= 1

    def authenticate(self, session: Session, token: str, cursor: Cursor, topics: Iterable[str]) -> None:
        """Check the token; open the session and begin what it reads, or ask for the connection's end."""
        if self.drain.started:
            session.close(CloseCode.DRAIN, "the gateway is leaving")
            return
        self._authentication.authenticate(session, token, cursor, topics)

    def handle(self, session: Session, command: Command) -> None:
        """Carry a command out, or begin to."""
        if session.output.close_code is not None:
            return  # it has been told to go, and this was on its way
        match command:
            case Auth() if session.state is State.WAITING:
                self.authenticate(session, command.token, command.cursor, command.topics)
            case Auth():
                self._authentication.refresh(session, command)
            case Subscribe():
                self._subscribe_handler.subscribe(session, command)
            case Unsubscribe():
                self._session_recovery.unsubscribe(session, command.topic)
                session.answer(command.ref)
            case Ack():
                self._ack(session, command)
            case ListOperations() | ShowOperation() | Cancel():
                self._operation(session, command)
            case Ping():
                session.answer(command.ref)
        self.flush()

    def _operation(self, session: Session, command: OperationCommand) -> None:
        if self.operations is None:
            session.refuse(CommandRefused("unavailable", "this gateway knows of no operations", ref=command.ref))
        else:
            self.operations.handle(session, command)

    def _ack(self, session: Session, command: Ack) -> None:
        if self._redelivery is None:
            session.answer(command.ref, acked=0)
        else:
            self._redelivery.ack(session, command)
