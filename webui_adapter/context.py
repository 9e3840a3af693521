"""The environment that all parts of one gateway share: settings, clock, counters, and the calls that every part makes.

A part takes a ``GatewayContext`` instead of five or six single arguments. The context is frozen and holds no part, so
each part still names in its constructor what it works with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from eventbus.backends.audit import AuditStore
from eventbus.backends.instances import ControlChannel, InstanceRegistry
from eventbus.backends.pending import PendingStore
from eventbus.backends.ports import Probe, Reader
from eventbus.backends.revocations import RevocationStore
from eventbus.backends.subscription import Subscriber
from eventbus.backends.tickets import TicketStore
from eventbus.clock import Clock
from eventbus.operations.store import OperationStore
from webui_adapter.settings import GatewaySettings

__all__ = ["BackendPorts", "GatewayContext"]


@dataclass(frozen=True, slots=True)
class GatewayContext:
    """The environment of one gateway's parts.

    Attributes:
        settings: all bounds and choices.
        instance: the name of this gateway in logs, leases and ``bus.hello``.
        life: this process. A restarted instance has the same name and another life.
        clock: the time.
        counters: how often something happened, by name; ``monitoring/metrics.py`` lists the names.
        spawn: runs a coroutine until it ends or the gateway does.
        flush: writes what sessions have queued to their transports.
        degraded: returns the most severe reason why Redis is unhealthy, or None.
        read_only: returns the reason why commands that write are refused, or None.
    """

    settings: GatewaySettings
    instance: str
    life: str
    clock: Clock
    counters: Counter[str]
    spawn: Callable[[Coroutine[object, object, None]], None]
    flush: Callable[[], None]
    degraded: Callable[[], str | None]
    read_only: Callable[[], str | None]


@dataclass(frozen=True, slots=True)
class BackendPorts:
    """The ports of ``eventbus.backends`` that one gateway reads and writes through.

    Attributes:
        subscriber: live publications.
        reader: histories and positions.
        probe: health checks of Redis; None for a broker in this process.
        pending_store: events that wait for an acknowledgement; None: the gateway redelivers nothing.
        operations: the state of operations; None: the gateway serves no operations.
        instances: the registry of gateway instances; None: this gateway is not in one.
        revocations: ended sessions and revoked tokens; None: the gateway revokes nothing.
        tickets: tickets for clients without headers; None: the gateway issues none.
        audit: the audit log; None: actions are only in the log of the process.
        control: carries messages to other instances; None: there are none.
    """

    subscriber: Subscriber
    reader: Reader
    probe: Probe | None = None
    pending_store: PendingStore | None = None
    operations: OperationStore | None = None
    instances: InstanceRegistry | None = None
    revocations: RevocationStore | None = None
    tickets: TicketStore | None = None
    audit: AuditStore | None = None
    control: ControlChannel | None = None
