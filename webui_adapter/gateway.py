"""The gateway: joins subscriber, hub and sessions. Where they meet an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import secrets
import socket
from collections import Counter
from collections.abc import Coroutine, Iterable

from eventbus.cursor import Cursor
from eventbus.errors import InvalidRecord
from eventbus.letters import Letters
from eventbus.operations import OperationBook
from eventbus.redis.letters import RedisLetters
from eventbus.redis.operations import RedisOperations
from eventbus.registry import registry
from eventbus.topics import channel_of
from eventbus.transport import Probe, Reader, Subscriber
from eventbus.wire import parse_again, parse_publication
from webui_adapter.admission import Admission
from webui_adapter.authorise import Authoriser
from webui_adapter.brokercontrol import BrokerControl
from webui_adapter.catchup import CatchUp
from webui_adapter.clock import Clock, SystemClock
from webui_adapter.closecodes import CloseCode
from webui_adapter.commands import (
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
from webui_adapter.errors import CommandRefused, TokenRefused
from webui_adapter.histogram import Histogram
from webui_adapter.hub import Hub
from webui_adapter.leases import LeaseSweep
from webui_adapter.letterbox import Letterbox
from webui_adapter.limits import CommandRates
from webui_adapter.operations import OperationCommand, OperationDesk
from webui_adapter.outlet import Framing, Line
from webui_adapter.quiet import QuietCheck
from webui_adapter.session import Session
from webui_adapter.settings import GatewaySettings
from webui_adapter.sieve import Sieve
from webui_adapter.spill import Spill
from webui_adapter.states import State
from webui_adapter.subscribing import Subscribing
from webui_adapter.sweeper import Sweeper
from webui_adapter.tokens import TokenChecker
from webui_adapter.undertaker import Undertaker
from webui_adapter.watch import Watch
from webui_adapter.wheel import Wheel

__all__ = ["Gateway", "Line"]

log = logging.getLogger(__name__)

# Close codes that are counted by their number: a peer may send any, and each would be a time series of its own.
_CODES = frozenset({*CloseCode, 1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1011, 1012})

_TICK = 0.25


class Gateway:
    """One instance: the subscriber's listener, and every session's environment.

    Attributes:
        sessions: by id.
        counters: what happened how often; ``metrics.py`` knows the names.
        operations: who asks for operations or stops them is served here; None: this gateway knows of none.
        leaving: whether the instance is shutting down.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        subscriber: Subscriber,
        reader: Reader,
        authoriser: Authoriser,
        clock: Clock | None = None,
        *,
        letters: Letters | None = None,
        ack_timeout: float = 10.0,
        spill: Spill | None = None,
        probe: Probe | None = None,
        operations: OperationBook | None = None,
    ) -> None:
        self.settings = settings
        self.clock = clock or SystemClock()
        self.counters: Counter[str] = Counter()
        self.sieve = Sieve(settings.max_message_size, self.counters, registry if settings.check_events else None)
        self.hub = Hub(self.sieve)
        self.tokens = TokenChecker(settings)
        self.admission = Admission(settings)
        self.latency = Histogram()
        self.instance = settings.instance or f"{socket.gethostname()}-{os.getpid()}"
        self.sessions: dict[str, Session] = {}
        self.leaving = False
        self._subscriber = subscriber
        self._reader = reader
        self.sweeper: Sweeper | None = None
        self._undertaker: Undertaker | None = None
        if letters is not None:
            self._undertaker = Undertaker(letters, spill, settings.dead_waiting, settings.sweep_interval, self.counters)
        self._letters = letters
        self._letterbox: Letterbox | None = None
        if letters is not None:
            self._letterbox = Letterbox(
                letters, self.clock, ack_timeout, self.counters, lambda: self.read_only, self._spawn, self.flush
            )
        self._book = operations
        self._control = None if settings.broker_url is None else BrokerControl(settings, self.counters)
        self.operations: OperationDesk | None = None
        if operations is not None:
            self.operations = OperationDesk(
                operations, self.tokens, self.counters, lambda: self.read_only, self._spawn, self.flush, self._control
            )
        self._catchup = CatchUp(self.hub, subscriber, reader, self.clock, self._spawn, self.turn_ended, self._letterbox)
        self._subscribing = Subscribing(settings, authoriser, self._catchup, self._spawn, self.flush)
        self.watch = Watch(
            settings,
            self.instance,
            self._catchup,
            subscriber,
            probe,
            self.counters,
            tell=self._tell_condition,
            arrivals=lambda: self.hub.events,
            spawn=self._spawn,
        )
        self.rates = CommandRates(settings, self.clock.now())
        self._quiet = QuietCheck(settings, self.hub, reader, self._catchup, self.watch, self.counters)
        self._wheel: Wheel[Session] = Wheel(self.clock.now(), _TICK)
        self._tasks: set[asyncio.Task[None]] = set()
        self._gone = asyncio.Event()

    # --- life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect to Redis in the background and start the timer."""
        self._spawn(self._turn_wheel())
        self._spawn(self.watch.run())
        self._spawn(self._quiet.run())
        if self._letterbox is not None:
            self._spawn(self._letterbox.run())
        if isinstance(self._letters, RedisLetters):
            settings = self.settings
            self.sweeper = Sweeper(
                self._letters,
                self.instance,
                settings.sweep_interval,
                settings.sweep_lease,
                self.counters,
                self._lease_sweep(),
            )
            self._spawn(self.sweeper.run())
        if self._control is not None:
            self._spawn(self._control.run())
        if self._undertaker is not None:
            self._spawn(self._undertaker.run())
        await self._subscriber.start(self)

    def _lease_sweep(self) -> LeaseSweep | None:
        if not isinstance(self._book, RedisOperations):
            return None
        settings = self.settings
        return LeaseSweep(self._book, self.clock, settings.lease_grace, settings.sweep_interval, self.counters)

    def drain(self) -> None:
        """Tell the sessions to leave, each at its own moment within the setting's time."""
        self.leaving = True
        spread = self.settings.drain_spread
        for session in list(self.sessions.values()):
            if session.state is State.OPEN:
                session.enter(State.LEAVING)
                after = int(random.uniform(0, spread) * 1000)  # noqa: S311 - spreads reconnects
                session.say("bus.drain", {"after_ms": after})
        self.flush()

    async def leave(self) -> None:
        """Be gone without a loss: tell the sessions, give them time to go elsewhere, close those that stay."""
        self.drain()
        if self.sessions:
            self._gone.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._gone.wait(), self.settings.drain_spread + self.settings.shutdown_grace)
        self.dismiss()

    def shutdown(self) -> None:
        """The server says that it is leaving, maybe once for each connection."""
        if not self.leaving:
            self.leaving = True
            self._spawn(self.leave())

    def dismiss(self) -> None:
        """Close all sessions: they come back elsewhere."""
        self.leaving = True
        for session in list(self.sessions.values()):
            session.close(CloseCode.DRAIN, "the gateway is leaving")
        self.flush()

    async def aclose(self) -> None:
        """End all sessions, tasks and connections."""
        self.dismiss()
        self._catchup.cancel()
        for task in self._tasks:
            task.cancel()
        await self._subscriber.aclose()
        await self.watch.aclose()
        await self._reader.aclose()

    @property
    def degraded(self) -> str | None:
        """What is wrong with Redis, or None. Pages are told."""
        return self.watch.condition.worst

    @property
    def read_only(self) -> str | None:
        """Why commands that write are refused, or None."""
        return self.watch.condition.read_only

    @property
    def not_ready(self) -> str | None:
        """Why this instance should get no new connections, or None."""
        return "leaving" if self.leaving else self.degraded

    # --- sessions --------------------------------------------------------------------------------------------

    def connect(self, framing: Framing) -> Session:
        """A new session; the caller has asked ``admission.full`` and calls ``attach_line`` next."""
        session = Session(
            secrets.token_urlsafe(12),
            self.settings,
            framing,
            self.hub.dirty,
            self.counters,
            self.clock,
            self.hub.behind,
        )
        self.sessions[session.id] = session
        self.rates.connected(session.rate)
        self.admission.connections += 1
        self.counters["connect"] += 1
        return session

    def attach_line(self, session: Session, line: Line) -> None:
        """From now on ``line`` writes what the session has to say."""
        session.line = line
        self._wheel.put(session, self.clock.now() + self.settings.auth_deadline)

    def disconnect(self, session: Session, code: int) -> None:
        """The connection is gone."""
        if session.state is State.CLOSED:
            return
        session.enter(State.CLOSED)
        said = session.close_code or code
        self.counters[f"disconnect.{int(said) if said in _CODES else 'other'}"] += 1
        self.sessions.pop(session.id, None)
        if not self.sessions:
            self._gone.set()
        session.line = None
        self._wheel.remove(session)
        for name in list(session.views):
            self._catchup.leave(name, session)
        session.asked.clear()
        self.admission.left(session)
        self.rates.left(session.rate)
        self.admission.connections -= 1

    def authenticate(self, session: Session, token: str, cursor: Cursor, topics: Iterable[str]) -> None:
        """Check the token; open the session and begin what it reads, or ask for the connection's end."""
        if self.leaving:
            session.close(CloseCode.DRAIN, "the gateway is leaving")
            return
        try:
            principal = self.tokens.check(token)
        except TokenRefused as error:
            self.counters["auth.expired" if error.expired else "auth.refused"] += 1
            session.close(CloseCode.TOKEN_EXPIRED if error.expired else CloseCode.TOKEN_REFUSED, str(error))
            return
        too_many, replaced = self.admission.enter(session, principal.user)
        if too_many:
            limit = self.settings.max_connections_per_user
            session.close(CloseCode.TOO_MANY_CONNECTIONS, f"this user has {limit} connections, the limit")
            return
        if replaced is not None:
            replaced.close(CloseCode.REPLACED, "a newer connection of this user took its place")
        session.open(principal, self.instance)
        self.rates.entered(session.rate, principal.user, self.clock.now())
        session.next_ping = self.clock.now() + random.uniform(0, self.settings.heartbeat_interval)  # noqa: S311 - spreads
        self._wheel.put(session, min(session.next_ping, session.expires))
        if self.degraded:
            session.say("bus.degraded", {"reason": self.degraded})
        for pattern in dict.fromkeys((*session.default_topics(), *topics)):
            self._subscribing.subscribe(session, Subscribe(pattern, cursor.get(channel_of(pattern))))

    def handle(self, session: Session, command: Command) -> None:
        """Carry a command out, or begin to."""
        if session.close_code is not None:
            return  # it has been told to go, and this was on its way
        match command:
            case Auth() if session.state is State.WAITING:
                self.authenticate(session, command.token, command.cursor, command.topics)
            case Auth():
                self._refresh(session, command)
            case Subscribe():
                self._subscribing.subscribe(session, command)
            case Unsubscribe():
                self._catchup.unsubscribe(session, command.topic)
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
        if self._letterbox is None:
            session.answer(command.ref, acked=0)
        else:
            self._letterbox.ack(session, command)

    def _refresh(self, session: Session, command: Auth) -> None:
        """A fresh token, in place: of the same user only."""
        assert session.principal is not None
        try:
            principal = self.tokens.check(command.token)
        except TokenRefused as error:
            self.counters["auth.refused"] += 1
            session.refuse(CommandRefused("unauthenticated", str(error), field="token", ref=command.ref))
            return
        if principal.user != session.principal.user:
            session.refuse(CommandRefused("forbidden", "the token is of another user", field="token", ref=command.ref))
            return
        session.renew(principal)
        # The new end may be earlier than the moment that the old one was to be looked at.
        self._wheel.put(session, self.clock.now())
        session.answer(command.ref, expires=int(principal.expires * 1000))

    # --- the subscriber's listener ---------------------------------------------------------------------------

    def received(self, channel: str, payload: bytes) -> None:
        """See ``Listener``."""
        try:
            again = parse_again(payload)
            if again is not None:
                self.hub.again(channel, *again)
                return
            publication = parse_publication(payload)
        except InvalidRecord as error:
            self.counters["drop.undecodable"] += 1
            log.warning("a publication on %s cannot be read: %s", channel, error)
            self.sieve.unreadable(channel, payload)
            return
        if not self.hub.receive(channel, publication):
            self.counters["hole"] += 1
            self._catchup.repair(self.hub.channels[channel])

    def turn_ended(self) -> None:
        """See ``Listener``."""
        self.flush()
        if self.sieve.condemned:
            if self._undertaker is not None:
                self._undertaker.take(self.sieve.condemned)
            self.sieve.condemned.clear()
        owing = self.hub.owing
        if owing:
            if self._letterbox is not None:
                for channel, record in owing:
                    if channel in self.hub.channels:  # or its last reader has gone since
                        self._letterbox.heard(channel, record)
            owing.clear()
        routed = self.hub.routed
        if routed:
            now = self.clock.wall()
            for emitted, receivers in routed:
                # Another machine's clock may be ahead of ours.
                self.latency.observe(max(0.0, now - emitted / 1e6), receivers)
            routed.clear()

    def lost(self, reason: str) -> None:
        """See ``Listener``."""
        self.watch.lost(reason)

    def restored(self) -> None:
        """See ``Listener``."""
        self.watch.restored()

    def probed(self, text: str) -> None:
        """See ``Listener``."""
        self.watch.probed(text)

    def _tell_condition(self, reason: str | None) -> None:
        if reason is None:
            self._tell_all("bus.restored", {})
        else:
            self._tell_all("bus.degraded", {"reason": reason})

    def _tell_all(self, type_: str, data: dict[str, object]) -> None:
        for session in self.sessions.values():
            if session.state in (State.OPEN, State.LEAVING):
                session.say(type_, data)
        self.flush()

    # --- the event loop's side -------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write everything that sessions have to say: one write for each, whatever the number of events."""
        if self.hub.behind:
            self._catchup.read_behind()
        dirty = self.hub.dirty
        while dirty:
            # What a line does may make other sessions dirty; they come in the next round.
            turn, dirty[:] = dirty[:], ()
            for outlet in turn:
                line = outlet.line
                if line is None:
                    outlet.out.clear()
                    continue
                line.flush()
                if outlet.close_code is not None and isinstance(outlet, Session) and outlet.state is not State.CLOSED:
                    self._wheel.put(outlet, outlet.closing_since + self.settings.close_timeout)

    async def _turn_wheel(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            now = self.clock.now()
            for session in self._wheel.due(now):
                try:
                    self._tick(session, now)
                except Exception:
                    # One session's trouble must not stop the time of all others.
                    log.exception("a session's timer failed")
            self.flush()

    def _tick(self, session: Session, now: float) -> None:
        line = session.line
        if session.state is State.CLOSED or line is None:
            return
        if session.close_code is not None and now >= session.closing_since + self.settings.close_timeout:
            # The peer takes nothing, not even its end.
            line.cut()
            self.disconnect(session, session.close_code)
            return
        due, ping = session.tick(now)
        self._wheel.put(session, due)
        if ping:
            line.ping()
            for name in session.narrow():
                position = self._catchup.position(name)
                if position is not None:
                    session.tell_position(name, position)

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task of the gateway failed", exc_info=task.exception())
