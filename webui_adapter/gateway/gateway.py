"""The gateway: what transports and routes ask of one instance. ``gateway/build.py`` assembles it."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass

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
from webui_adapter.instances.forwarding import CommandForwarder
from webui_adapter.instances.heartbeat import Heartbeat
from webui_adapter.maintenance.maintenance import Maintenance
from webui_adapter.maintenance.revocation_monitor import RevocationMonitor
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

# Close codes that have a time series. A client may send any code; all others are counted together.
_CODES = frozenset({*CloseCode, 1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1011, 1012})


@dataclass(frozen=True, kw_only=True, slots=True)
class EventParts:
    """The parts through which events reach the sessions.

    Attributes:
        maintenance: work that one instance does for all of them.
        redelivery: sends unacknowledged events again; None: there are none.
        history_reader: reads logs and snapshots.
        session_recovery: brings sessions up to date.
        redis_monitor: the health of Redis.
        revocation_monitor: ends sessions whose tokens are revoked; None: this gateway revokes nothing.
        idle_check: compares idle channels with Redis.
        turn_end: hands on what the hub has collected.
        listener: receives what the subscriber reads.
    """

    maintenance: Maintenance
    redelivery: RedeliveryScheduler | None
    history_reader: HistoryReader
    session_recovery: SessionRecovery
    redis_monitor: RedisMonitor
    revocation_monitor: RevocationMonitor | None
    idle_check: IdleChannelCheck
    turn_end: TurnEnd
    listener: SubscriptionListener


@dataclass(frozen=True, kw_only=True, slots=True)
class GatewayParts:
    """The parts of one gateway.

    Attributes:
        context: what all parts share.
        ports: the backend.
        tasks: the background tasks.
        sessions: the open sessions by id.
        hub: the channels.
        access: authentication and limits.
        drain: the orderly shutdown.
        heartbeat: keeps this instance in the registry; None: there is none.
        events: the parts through which events reach the sessions.
        operations: answers requests about operations; None: this gateway serves none.
        deadlines: the deadlines of all sessions.
        subscribe_handler: carries out ``subscribe``.
        authentication: checks the tokens of sessions.
    """

    context: GatewayContext
    ports: BackendPorts
    tasks: BackgroundTasks
    sessions: dict[str, Session]
    hub: Hub
    access: AccessControl
    drain: Drain
    heartbeat: Heartbeat | None
    events: EventParts
    operations: OperationService | None
    deadlines: SessionDeadlines
    subscribe_handler: SubscribeHandler
    authentication: Authentication


class Gateway:
    """One instance. Transports open sessions here and hand over what browsers send.

    Args:
        parts: the parts, as ``gateway/build.py`` assembles them.

    Attributes:
        settings: all bounds and choices.
        life: this process; the ids of its sessions begin with it.
        clock: the time.
        counters: how often something happened; ``monitoring/metrics.py`` lists the names.
        sessions: the open sessions by id.
        hub: the channels.
        authentication: opens sessions, and renews their tokens.
        authenticator: checks tokens, or asks the application.
        connection_limits: bounds per instance and per user.
        address_limits: bounds per address.
        rate_limiters: the rates that sessions share.
        drain: the orderly shutdown.
        maintenance: work that one instance does for all of them.
        operations: answers requests about operations; None: this gateway serves none.
        redis_monitor: the health of Redis.
        revocation_monitor: ends sessions whose tokens are revoked; None: this gateway revokes nothing.
        listener: receives what the subscriber reads.
        forwarder: sends commands to other instances; None: there are none.
        latency: of events, from ``emit`` to the sessions.
        flush: writes what sessions have queued.
    """

    def __init__(self, parts: GatewayParts) -> None:
        context, access, events = parts.context, parts.access, parts.events
        self.settings = context.settings
        self.life = context.life
        self.clock = context.clock
        self.counters = context.counters
        self.flush = context.flush
        self.sessions = parts.sessions
        self.hub = parts.hub
        self.authenticator = access.authenticator
        self.connection_limits = access.connection_limits
        self.address_limits = access.address_limits
        self.rate_limiters = access.rate_limiters
        self.drain = parts.drain
        self.maintenance = events.maintenance
        self.operations = parts.operations
        self.redis_monitor = events.redis_monitor
        self.revocation_monitor = events.revocation_monitor
        self.listener = events.listener
        self.latency = events.turn_end.latency
        self._health = events.redis_monitor.health
        self._heartbeat = parts.heartbeat
        self._ports = parts.ports
        self._tasks = parts.tasks
        self._redelivery = events.redelivery
        self._history_reader = events.history_reader
        self._session_recovery = events.session_recovery
        self._idle_check = events.idle_check
        self._deadlines = parts.deadlines
        self._subscribe_handler = parts.subscribe_handler
        self.authentication = parts.authentication
        self.forwarder: CommandForwarder | None = None
        if parts.ports.control is not None:
            self.forwarder = CommandForwarder(context, parts.ports.control, parts.sessions, self.handle)
            self.listener.on_control = self.forwarder.received

    # --- life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the background tasks, and connect to Redis in the background."""
        self._tasks.spawn(self._deadlines.run(self.disconnect))
        self._tasks.spawn(self.redis_monitor.run())
        self._tasks.spawn(self._idle_check.run())
        self._tasks.spawn(self.authenticator.run())
        if self.revocation_monitor is not None:
            self._tasks.spawn(self.revocation_monitor.run())
        if self._redelivery is not None:
            self._tasks.spawn(self._redelivery.run())
        if self._heartbeat is not None:
            self._tasks.spawn(self._heartbeat.run())
        self.maintenance.start(self._tasks.spawn)
        self._ports.subscriber.receive_control(self.life)
        await self._ports.subscriber.start(self.listener)

    async def aclose(self) -> None:
        """Close all sessions, tasks and connections."""
        self.drain.close_all()
        self._session_recovery.channel_recovery.cancel()
        self._history_reader.cancel()
        self._tasks.cancel()
        await self._ports.subscriber.aclose()
        await self.redis_monitor.aclose()
        if self._heartbeat is not None:
            await self._heartbeat.leave()
        await self._ports.reader.aclose()

    @property
    def degraded(self) -> str | None:
        """The most severe reason why Redis is unhealthy, or None. All pages receive it."""
        return self._health.most_severe

    @property
    def read_only(self) -> str | None:
        """The reason why commands that write are refused, or None."""
        return self._health.read_only

    @property
    def not_ready(self) -> str | None:
        """The reason why this instance should receive no new connections, or None."""
        return "leaving" if self.drain.started else self.degraded or self.authenticator.not_ready

    # --- sessions --------------------------------------------------------------------------------------------

    def connect(self, encoder: Encoder, client: str = "") -> Session:
        """Open a session. Check ``connection_limits.full`` before, and call ``attach_transport`` next.

        Args:
            encoder: turns events into the bytes of the transport.
            client: the address that ``address_limits`` has admitted; empty: none.

        Returns:
            The session, which waits for a token.
        """
        id_ = f"{self.life}.{secrets.token_urlsafe(12)}"
        output = Output(id_, self.settings, encoder, self.hub.dirty, self.counters, self.clock)
        session = Session(output, Subscriptions(output), client)
        self.sessions[session.id] = session
        self.rate_limiters.connected(session.rate)
        oldest = self.connection_limits.connected(session)
        if oldest is not None:
            self._evict(oldest)
        self.counters["connect"] += 1
        return session

    def attach_transport(self, session: Session, transport: Transport) -> None:
        """Let a transport write what the session queues.

        Args:
            session: the session.
            transport: the transport.
        """
        session.output.transport = transport
        self._deadlines.schedule(session, self.clock.now() + self.settings.auth_deadline)

    def disconnect(self, session: Session, code: int) -> None:
        """End a session whose connection has ended.

        Args:
            session: the session.
            code: the close code of the connection; the session's own code takes precedence.
        """
        if session.state is State.CLOSED:
            return
        session.enter(State.CLOSED)
        final = session.output.close_code or code
        self.counters[f"disconnect.{int(final) if final in _CODES else 'other'}"] += 1
        self.sessions.pop(session.id, None)
        if not self.sessions:
            self.drain.on_empty()
        session.output.transport = None
        self._deadlines.cancel(session)
        for name in list(session.subscriptions.channels):
            self._session_recovery.leave(name, session)
        session.subscriptions.awaiting_authorisation.clear()
        self.connection_limits.disconnected(session)
        self.address_limits.release(session.client)
        self.rate_limiters.disconnected(session.rate)
        self.authentication.forget(session)

    def _evict(self, session: Session) -> None:
        """Cut a connection that has sent no token, to make room for a newer one."""
        self.counters["refused.unauthenticated"] += 1
        transport = session.output.transport
        if transport is not None:
            transport.cut()
        self.disconnect(session, CloseCode.NO_TOKEN)

    def handle(self, session: Session, command: Command) -> None:
        """Carry out a command, or begin to.

        Args:
            session: the session that sent it.
            command: the command.
        """
        if session.output.close_code is not None:
            return  # The command was on its way when the gateway asked the session to close.
        match command:
            case Auth() if session.state is State.WAITING:
                self.authentication.first_message(session, command)
            case Auth():
                self.authentication.refresh(session, command)
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
            session.refuse(CommandRefused("unavailable", "this gateway serves no operations", ref=command.ref))
        else:
            self.operations.handle(session, command)

    def _ack(self, session: Session, command: Ack) -> None:
        if self._redelivery is None:
            session.answer(command.ref, acked=0)
        else:
            self._redelivery.ack(session, command)
