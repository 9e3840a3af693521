"""Assemble a gateway: each part gets the context and the parts that it works with. Nothing else constructs them."""

from __future__ import annotations

import os
import secrets
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from eventbus.backends.factory import (
    connect,
    connect_audit_store,
    connect_control_channel,
    connect_instance_registry,
    connect_operation_store,
    connect_pending_store,
    connect_probe,
    connect_revocation_store,
    connect_ticket_store,
)
from eventbus.backends.memory.adapters import MemoryBroker
from eventbus.clock import Clock, SystemClock
from eventbus.events.registry import registry
from eventbus.outbox.spool import spool_folder
from eventbus.settings import BusSettings
from webui_adapter.access.address_limits import AddressLimits
from webui_adapter.access.application_function import load_function
from webui_adapter.access.authenticator import Authenticate, Authenticator
from webui_adapter.access.authoriser import Authoriser, load_authoriser
from webui_adapter.access.rate_limits import CommandRateLimiters
from webui_adapter.access.revocations import Revocations
from webui_adapter.channels.history_reader import HistoryReader
from webui_adapter.channels.hub import Hub
from webui_adapter.channels.redelivery import RedeliveryScheduler
from webui_adapter.channels.session_recovery import SessionRecovery
from webui_adapter.channels.validation import RecordValidator
from webui_adapter.context import BackendPorts, GatewayContext
from webui_adapter.gateway.authentication import AccessControl, Authentication
from webui_adapter.gateway.background_tasks import BackgroundTasks
from webui_adapter.gateway.connection_limits import ConnectionLimits
from webui_adapter.gateway.deadlines import SessionDeadlines
from webui_adapter.gateway.draining import Drain
from webui_adapter.gateway.gateway import EventParts, Gateway, GatewayParts
from webui_adapter.gateway.listener import SubscriptionListener, TurnEnd
from webui_adapter.gateway.operations import OperationService
from webui_adapter.gateway.session_flusher import SessionFlusher
from webui_adapter.gateway.subscribe import SubscribeHandler
from webui_adapter.health.format_monitor import FormatMonitor
from webui_adapter.health.idle_channel_check import IdleChannelCheck
from webui_adapter.health.redis_monitor import STARTING, RedisMonitor
from webui_adapter.health.status import Degradation, HealthStatus
from webui_adapter.instances.heartbeat import Heartbeat
from webui_adapter.maintenance.dead_letter_file import DeadLetterFile
from webui_adapter.maintenance.maintenance import Maintenance
from webui_adapter.maintenance.revocation_monitor import RevocationMonitor
from webui_adapter.session.session import Session
from webui_adapter.session.states import State
from webui_adapter.settings import GatewaySettings, read_settings

__all__ = ["build_gateway", "connect_gateway"]


def connect_gateway(
    settings: GatewaySettings | None = None,
    bus_settings: BusSettings | None = None,
    *,
    authoriser: Authoriser | None = None,
    authenticate: Authenticate | None = None,
    broker: MemoryBroker | None = None,
) -> Gateway:
    """Build a gateway on the Redis of ``bus_settings``. It connects when it is started.

    Args:
        settings: bounds and choices; default: read from the environment.
        bus_settings: the address of Redis; default: read from the environment.
        authoriser: decides about collections; default: the one that ``settings`` names.
        authenticate: says who connects; default: the function that ``settings`` names, if any, otherwise JWTs.
        broker: keeps everything in this process instead of in Redis.

    Returns:
        The gateway; ``start`` it, or include its ``routes`` in an application.

    Raises:
        NotConfigured: a setting names something that does not exist or does not work.
    """
    settings = settings or read_settings(GatewaySettings)
    bus_settings = bus_settings or read_settings(BusSettings)
    subscriber, reader = connect(bus_settings, broker=broker, history_calls=settings.history_calls)
    ports = BackendPorts(
        subscriber,
        reader,
        probe=connect_probe(bus_settings, broker=broker),
        pending_store=connect_pending_store(bus_settings, reader, broker=broker),
        operations=connect_operation_store(bus_settings, reader, broker=broker),
        instances=connect_instance_registry(bus_settings, reader),
        revocations=connect_revocation_store(bus_settings, reader, broker=broker),
        tickets=connect_ticket_store(bus_settings, reader, broker=broker),
        audit=connect_audit_store(bus_settings, reader),
        control=connect_control_channel(bus_settings, reader),
    )
    dead_letter_file: DeadLetterFile | None = None
    if broker is None:
        dead_letter_file = DeadLetterFile(spool_folder(bus_settings), settings.dead_spill_bytes)
    return build_gateway(
        settings,
        ports,
        authoriser or load_authoriser(settings.authoriser),
        authenticate=authenticate or _own_authentication(settings),
        ack_timeout=bus_settings.ack_timeout,
        dead_letter_file=dead_letter_file,
    )


def _own_authentication(settings: GatewaySettings) -> Authenticate | None:
    if not settings.authenticate:
        return None
    return cast("Authenticate", load_function("WEBUI_AUTHENTICATE", settings.authenticate))


def build_gateway(
    settings: GatewaySettings,
    ports: BackendPorts,
    authoriser: Authoriser,
    *,
    authenticate: Authenticate | None = None,
    clock: Clock | None = None,
    ack_timeout: float = 10.0,
    dead_letter_file: DeadLetterFile | None = None,
) -> Gateway:
    """Assemble the parts of a gateway.

    Args:
        settings: bounds and choices.
        ports: where events are read and written.
        authoriser: decides who may read which collection.
        authenticate: says who connects; None: tokens are JWTs.
        clock: the time; default: the system's.
        ack_timeout: seconds until an unacknowledged event is sent again.
        dead_letter_file: keeps dead letters on disk while Redis takes none; None: they are dropped.

    Returns:
        The gateway, not started.

    Raises:
        NotConfigured: the key of the tokens does not fit the algorithm.
    """
    core = _build_core(settings, clock or SystemClock(None if ports.probe is None else ports.probe.clock))
    revocations = Revocations()
    access = AccessControl(
        Authenticator(settings, revocations, core.context.counters, core.context.clock, authenticate, ports.tickets),
        ConnectionLimits(settings),
        AddressLimits(settings),
        CommandRateLimiters(settings, core.context.clock.now()),
    )
    monitor: RevocationMonitor | None = None
    if ports.revocations is not None:
        monitor = RevocationMonitor(core.context, ports.revocations, revocations, core.sessions)
    events = _build_events(core, ports, ack_timeout, dead_letter_file, monitor)
    return Gateway(_assemble(core, ports, authoriser, access, events))


@dataclass(frozen=True, slots=True)
class _Core:
    """The parts that every other part needs."""

    context: GatewayContext
    tasks: BackgroundTasks
    sessions: dict[str, Session]
    hub: Hub
    flusher: SessionFlusher
    health: HealthStatus


def _build_core(settings: GatewaySettings, clock: Clock) -> _Core:
    counters, tasks = Counter[str](), BackgroundTasks()
    sessions: dict[str, Session] = {}
    hub = Hub(RecordValidator(settings.max_message_size, counters, registry if settings.check_events else None))
    flusher = SessionFlusher(hub, sessions)
    health = HealthStatus(_health_notifier(sessions, flusher.flush), {Degradation.LOST: STARTING})
    context = GatewayContext(
        settings,
        settings.instance or f"{socket.gethostname()}-{os.getpid()}",
        secrets.token_hex(8),
        clock,
        counters,
        tasks.spawn,
        flusher.flush,
        degraded=lambda: health.most_severe,
        read_only=lambda: health.read_only,
    )
    return _Core(context, tasks, sessions, hub, flusher, health)


def _assemble(
    core: _Core, ports: BackendPorts, authoriser: Authoriser, access: AccessControl, events: EventParts
) -> GatewayParts:
    context = core.context
    deadlines = SessionDeadlines(context, core.hub)
    core.flusher.connect(events.session_recovery.recover_behind, deadlines.schedule_close)
    subscribe_handler = SubscribeHandler(context, authoriser, events.session_recovery)
    heartbeat: Heartbeat | None = None
    if ports.instances is not None:
        heartbeat = Heartbeat(context, ports.instances, core.health, core.sessions)
    drain = Drain(context, core.sessions, heartbeat.drain_begun if heartbeat is not None else lambda: None)
    return GatewayParts(
        context=context,
        ports=ports,
        tasks=core.tasks,
        sessions=core.sessions,
        hub=core.hub,
        access=access,
        drain=drain,
        heartbeat=heartbeat,
        events=events,
        operations=_build_operations(context, ports, events.maintenance),
        deadlines=deadlines,
        subscribe_handler=subscribe_handler,
        authentication=Authentication(context, access, subscribe_handler, deadlines, drain),
    )


def _build_events(
    core: _Core,
    ports: BackendPorts,
    ack_timeout: float,
    dead_letter_file: DeadLetterFile | None,
    revocation_monitor: RevocationMonitor | None,
) -> EventParts:
    context, hub, health = core.context, core.hub, core.health
    maintenance = Maintenance(context, ports.pending_store, ports.operations, dead_letter_file)
    redelivery: RedeliveryScheduler | None = None
    if ports.pending_store is not None:
        redelivery = RedeliveryScheduler(context, ports.pending_store, ack_timeout)
    turn_end = TurnEnd(context, hub, redelivery, maintenance.dead_letter_writer)
    format_monitor = FormatMonitor(context, health)
    history_reader = HistoryReader(ports.reader, hub.validator, format_monitor.met)
    session_recovery = SessionRecovery(context, hub, ports.subscriber, history_reader, redelivery, changed=turn_end.run)
    channel_recovery = session_recovery.channel_recovery
    ports.reader.be_voter(hub.newest, ports.subscriber.reconnect)
    redis_monitor = RedisMonitor(context, health, ports, channel_recovery, hub)
    return EventParts(
        maintenance=maintenance,
        redelivery=redelivery,
        history_reader=history_reader,
        session_recovery=session_recovery,
        redis_monitor=redis_monitor,
        idle_check=IdleChannelCheck(context, hub, ports.reader, channel_recovery, redis_monitor),
        turn_end=turn_end,
        revocation_monitor=revocation_monitor,
        listener=SubscriptionListener(
            context, hub, channel_recovery, redis_monitor, format_monitor, turn_end, revocation_monitor
        ),
    )


def _build_operations(
    context: GatewayContext, ports: BackendPorts, maintenance: Maintenance
) -> OperationService | None:
    if ports.operations is None:
        return None
    return OperationService(context, ports.operations, maintenance.broker_control, ports.audit)


def _health_notifier(sessions: Mapping[str, Session], flush: Callable[[], None]) -> Callable[[str | None], None]:
    """Return a function that sends the health of Redis to all open sessions."""

    def notify(degraded: str | None) -> None:
        for session in sessions.values():
            if session.state in (State.OPEN, State.LEAVING):
                if degraded is None:
                    session.send("bus.restored", {})
                else:
                    session.send("bus.degraded", {"reason": degraded})
        flush()

    return notify
