"""The gateway: its parts put together, and what edges ask of it."""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections import Counter
from collections.abc import Iterable

from eventbus.backends.pending import PendingStore
from eventbus.backends.ports import Probe, Reader, Subscriber
from eventbus.clock import Clock, SystemClock
from eventbus.events.registry import registry
from eventbus.operations.store import OperationStore
from eventbus.protocol.cursor import Cursor
from webui_adapter.access.authoriser import Authoriser
from webui_adapter.access.rate_limits import CommandRateLimiters
from webui_adapter.access.tokens import TokenChecker
from webui_adapter.channels.history_reader import HistoryReader
from webui_adapter.channels.hub import Hub
from webui_adapter.channels.redelivery import RedeliveryScheduler
from webui_adapter.channels.session_recovery import SessionRecovery
from webui_adapter.channels.validation import RecordValidator
from webui_adapter.errors import CommandRefused
from webui_adapter.gateway.authentication import Authentication
from webui_adapter.gateway.background_tasks import Tasks
from webui_adapter.gateway.connection_limits import ConnectionLimits
from webui_adapter.gateway.deadlines import SessionDeadlines
from webui_adapter.gateway.draining import Drain
from webui_adapter.gateway.listener import SubscriptionListener
from webui_adapter.gateway.operations import OperationCommand, OperationService
from webui_adapter.gateway.subscribe import SubscribeHandler
from webui_adapter.health.idle_channel_check import IdleChannelCheck
from webui_adapter.health.redis_monitor import RedisMonitor
from webui_adapter.maintenance.dead_letter_file import DeadLetterFile
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
from webui_adapter.session.output import Encoder, Output, Transport
from webui_adapter.session.session import Session
from webui_adapter.session.states import State
from webui_adapter.session.subscriptions import Subscriptions
from webui_adapter.settings import GatewaySettings

__all__ = ["Gateway", "Transport"]

log = logging.getLogger(__name__)

# Close codes that are counted by their number: a peer may send any, and each would be a time series of its own.
_CODES = frozenset({*CloseCode, 1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1011, 1012})


class Gateway:
    """One instance: every session's environment.

    Attributes:
        sessions: by id.
        counters: what happened how often; ``metrics.py`` knows the names.
        hub: the channels.
        listener: what the subscriber hears.
        watch: what is wrong with Redis.
        upkeep: what it does for all instances.
        operations: who asks for operations or stops them is served here; None: this gateway knows of none.
        drain: how it leaves, and whether it does.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        subscriber: Subscriber,
        reader: Reader,
        authoriser: Authoriser,
        clock: Clock | None = None,
        *,
        letters: PendingStore | None = None,
        ack_timeout: float = 10.0,
        dead_letter_file: DeadLetterFile | None = None,
        probe: Probe | None = None,
        operations: OperationStore | None = None,
    ) -> None:
        self.settings = settings
        self.clock = clock or SystemClock()
        self.counters: Counter[str] = Counter()
        self.hub = Hub(
            RecordValidator(settings.max_message_size, self.counters, registry if settings.check_events else None)
        )
        self.tokens = TokenChecker(settings)
        self.connection_limits = ConnectionLimits(settings)
        self.rate_limiters = CommandRateLimiters(settings, self.clock.now())
        self.instance = settings.instance or f"{socket.gethostname()}-{os.getpid()}"
        self.sessions: dict[str, Session] = {}
        self._subscriber = subscriber
        self._reader = reader
        clock, hub, counters, flush = self.clock, self.hub, self.counters, self.flush
        self._tasks = Tasks()
        spawn = self._tasks.spawn
        self.drain = Drain(settings, self.sessions, spawn, flush)
        self.maintenance = Maintenance(settings, self.instance, letters, operations, dead_letter_file, clock, counters)
        self._redelivery: RedeliveryScheduler | None = None
        if letters is not None:
            self._redelivery = RedeliveryScheduler(
                letters, clock, ack_timeout, counters, lambda: self.read_only, spawn, flush
            )
        self.operations: OperationService | None = None
        if operations is not None:
            self.operations = OperationService(
                operations, self.tokens, counters, lambda: self.read_only, spawn, flush, self.maintenance.broker_control
            )
        self._history_reader = HistoryReader(reader, hub.validator)
        self._session_recovery = SessionRecovery(
            hub, subscriber, self._history_reader, clock, spawn, self._turn_ended, self._redelivery
        )
        channel_recovery = self._session_recovery.channel_recovery
        self.redis_monitor = RedisMonitor(
            settings,
            self.instance,
            channel_recovery,
            subscriber,
            probe,
            counters,
            self._notify_sessions,
            lambda: hub.events,
            spawn,
        )
        self._idle_check = IdleChannelCheck(settings, hub, reader, channel_recovery, self.redis_monitor, counters)
        self.listener = SubscriptionListener(
            hub,
            channel_recovery,
            self.redis_monitor,
            self._redelivery,
            self.maintenance.dead_letter_writer,
            clock,
            counters,
            flush,
        )
        self._deadlines = SessionDeadlines(hub, clock, settings.close_timeout, self.disconnect, flush)
        self._subscribe_handler = SubscribeHandler(settings, authoriser, self._session_recovery, spawn, flush)
        self._authentication = Authentication(
            settings,
            self.instance,
            self.tokens,
            self.connection_limits,
            self.rate_limiters,
            self._subscribe_handler,
            self.redis_monitor,
            self._deadlines,
            clock,
            counters,
        )

    # --- life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect to Redis in the background and start the timer."""
        self._tasks.spawn(self._deadlines.run())
        self._tasks.spawn(self.redis_monitor.run())
        self._tasks.spawn(self._idle_check.run())
        if self._redelivery is not None:
            self._tasks.spawn(self._redelivery.run())
        self.maintenance.start(self._tasks.spawn)
        await self._subscriber.start(self.listener)

    async def aclose(self) -> None:
        """End all sessions, tasks and connections."""
        self.drain.close_all()
        self._session_recovery.channel_recovery.cancel()
        self._history_reader.cancel()
        self._tasks.cancel()
        await self._subscriber.aclose()
        await self.redis_monitor.aclose()
        await self._reader.aclose()

    @property
    def degraded(self) -> str | None:
        """What is wrong with Redis, or None. Pages are told."""
        return self.redis_monitor.health.most_severe

    @property
    def read_only(self) -> str | None:
        """Why commands that write are refused, or None."""
        return self.redis_monitor.health.read_only

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

    # --- the event loop's side -------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write everything that sessions have to say: one write for each, whatever the number of events."""
        if self.hub.behind:
            self._session_recovery.recover_behind()
        dirty = self.hub.dirty
        while dirty:
            # What a line does may make other sessions dirty; they come in the next round.
            turn, dirty[:] = dirty[:], ()
            for output in turn:
                line = output.transport
                if line is None:
                    output.out.clear()
                    continue
                line.flush()
                session = self.sessions.get(output.session_id)
                if output.close_code is not None and session is not None:
                    self._deadlines.schedule_close(session)

    def _turn_ended(self) -> None:
        self.listener.turn_ended()

    def _notify_sessions(self, trouble: str | None) -> None:
        """Say what is wrong with Redis, or that nothing is any more."""
        for session in self.sessions.values():
            if session.state in (State.OPEN, State.LEAVING):
                if trouble is None:
                    session.send("bus.restored", {})
                else:
                    session.send("bus.degraded", {"reason": trouble})
        self.flush()
