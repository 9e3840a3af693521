"""Makes the asynchronous ports of a backend from settings, for a gateway."""

from __future__ import annotations

from eventbus.backends.audit import AuditStore
from eventbus.backends.instances import ControlChannel, InstanceRegistry
from eventbus.backends.memory.adapters import (
    MemoryBroker,
    MemoryOperations,
    MemoryPendingStore,
    MemoryReader,
    MemorySubscriber,
)
from eventbus.backends.memory.revocations import MemoryRevocations
from eventbus.backends.memory.tickets import MemoryTickets
from eventbus.backends.pending import PendingStore
from eventbus.backends.ports import Probe, Reader
from eventbus.backends.redis.access.revocation_store import RedisRevocations
from eventbus.backends.redis.access.ticket_store import RedisTickets
from eventbus.backends.redis.audit.audit_log import RedisAuditStore
from eventbus.backends.redis.cluster.probe import ClusterProbe
from eventbus.backends.redis.instance_registry import RedisControlChannel, RedisInstanceRegistry
from eventbus.backends.redis.operation_store import RedisOperations
from eventbus.backends.redis.pending_store import RedisPendingStore
from eventbus.backends.redis.probe import RedisProbe
from eventbus.backends.redis.reader import RedisReader
from eventbus.backends.redis.subscriber import RedisSubscriber
from eventbus.backends.revocations import RevocationStore
from eventbus.backends.subscription import Subscriber
from eventbus.backends.tickets import TicketStore
from eventbus.operations.store import OperationStore
from eventbus.settings import BusSettings

__all__ = [
    "connect",
    "connect_audit_store",
    "connect_control_channel",
    "connect_instance_registry",
    "connect_operation_store",
    "connect_pending_store",
    "connect_probe",
    "connect_revocation_store",
    "connect_ticket_store",
]


def connect(
    settings: BusSettings, *, broker: MemoryBroker | None = None, history_calls: int = 20_000
) -> tuple[Subscriber, Reader]:
    """Make a subscriber and a reader. They connect at first use.

    Args:
        settings: names the server.
        broker: an in-process broker; the ports then use it and no server.
        history_calls: maximum number of calls of the reader that wait for a reply.

    Returns:
        The subscriber and the reader.
    """
    if broker is not None:
        return MemorySubscriber(broker), MemoryReader(broker)
    return RedisSubscriber(settings), RedisReader(settings, most_waiting=history_calls)


def connect_pending_store(
    settings: BusSettings, reader: Reader, *, broker: MemoryBroker | None = None
) -> PendingStore | None:
    """Make the store of pending events.

    Args:
        settings: limits and lifetimes.
        reader: the store uses its connection.
        broker: an in-process broker; the store then uses it and no server.

    Returns:
        The store; None if the reader is neither ``RedisReader`` nor replaced by a broker.
    """
    if broker is not None:
        return MemoryPendingStore(broker)
    return RedisPendingStore(settings, reader) if isinstance(reader, RedisReader) else None


def connect_operation_store(
    settings: BusSettings, reader: Reader, *, broker: MemoryBroker | None = None
) -> OperationStore | None:
    """Make the store of operations.

    Args:
        settings: limits and lifetimes.
        reader: the store uses its connection.
        broker: an in-process broker; the store then uses it and no server.

    Returns:
        The store; None if the reader is neither ``RedisReader`` nor replaced by a broker.
    """
    if broker is not None:
        return MemoryOperations(broker)
    return RedisOperations(settings, reader) if isinstance(reader, RedisReader) else None


def connect_revocation_store(
    settings: BusSettings, reader: Reader, *, broker: MemoryBroker | None = None
) -> RevocationStore | None:
    """Make the store of revocations.

    Args:
        settings: limit and lifetime.
        reader: the store uses its connection.
        broker: an in-process broker; the store then uses it and no server.

    Returns:
        The store; None if the reader is neither ``RedisReader`` nor replaced by a broker.
    """
    if broker is not None:
        return MemoryRevocations(broker)
    return RedisRevocations(settings, reader, via="http") if isinstance(reader, RedisReader) else None


def connect_audit_store(settings: BusSettings, reader: Reader) -> AuditStore | None:
    """Make the store of the audit log.

    Args:
        settings: its bounds.
        reader: the store uses its connection.

    Returns:
        The store; None if the reader is no ``RedisReader``: a broker in this process keeps no log.
    """
    return RedisAuditStore(settings, reader) if isinstance(reader, RedisReader) else None


def connect_ticket_store(
    settings: BusSettings, reader: Reader, *, broker: MemoryBroker | None = None
) -> TicketStore | None:
    """Make the store of tickets.

    Args:
        settings: the keys' prefix.
        reader: the store uses its connection.
        broker: an in-process broker; the store is then in this process too.

    Returns:
        The store; None if the reader is neither ``RedisReader`` nor replaced by a broker.
    """
    if broker is not None:
        return MemoryTickets()
    return RedisTickets(settings, reader) if isinstance(reader, RedisReader) else None


def connect_probe(settings: BusSettings, *, broker: MemoryBroker | None = None) -> Probe | None:
    """Make the probe of the server's health.

    Args:
        settings: names the server.
        broker: an in-process broker.

    Returns:
        The probe; None with a broker, which needs no check.
    """
    if broker is not None:
        return None
    return ClusterProbe(settings) if settings.redis.kind == "cluster" else RedisProbe(settings)


def connect_instance_registry(settings: BusSettings, reader: Reader) -> InstanceRegistry | None:
    """Make the registry of gateway instances.

    Args:
        settings: the lease of an instance.
        reader: the registry uses its connection.

    Returns:
        The registry; None if the reader is no ``RedisReader``: a broker in this process has one instance.
    """
    return RedisInstanceRegistry(settings, reader) if isinstance(reader, RedisReader) else None


def connect_control_channel(settings: BusSettings, reader: Reader) -> ControlChannel | None:
    """Make the channel through which gateway processes send each other messages.

    Args:
        settings: the keys' prefix.
        reader: the channel uses its connection.

    Returns:
        The channel; None if the reader is no ``RedisReader``.
    """
    return RedisControlChannel(settings, reader) if isinstance(reader, RedisReader) else None
