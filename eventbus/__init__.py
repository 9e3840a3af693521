"""Typed events from Celery tasks to the browsers that wait for them: what both ends share."""

from eventbus.backends.redis.access.sessions import AsyncSessions, Sessions
from eventbus.backends.redis.operation_client import Operations
from eventbus.backends.revocations import Revocation
from eventbus.bus import Bus
from eventbus.errors import (
    DeliveryFailed,
    DuplicateEventName,
    EventBusError,
    InvalidEmission,
    InvalidName,
    InvalidPayload,
    InvalidStage,
    NoOperation,
    NotAcknowledgeable,
    RateLimited,
    Refused,
    TooLarge,
    TooManyDeferred,
    TooManyRevocations,
    Unavailable,
)
from eventbus.events.event import Event
from eventbus.events.receipt import Receipt
from eventbus.operations.store import OperationInfo
from eventbus.process_bus import aannounce, abroadcast, aemit, announce, broadcast, configure, default_bus, emit
from eventbus.settings import BusSettings

__all__ = [
    "AsyncSessions",
    "Bus",
    "BusSettings",
    "DeliveryFailed",
    "DuplicateEventName",
    "Event",
    "EventBusError",
    "InvalidEmission",
    "InvalidName",
    "InvalidPayload",
    "InvalidStage",
    "NoOperation",
    "NotAcknowledgeable",
    "OperationInfo",
    "Operations",
    "RateLimited",
    "Receipt",
    "Refused",
    "Revocation",
    "Sessions",
    "TooLarge",
    "TooManyDeferred",
    "TooManyRevocations",
    "Unavailable",
    "aannounce",
    "abroadcast",
    "aemit",
    "announce",
    "broadcast",
    "configure",
    "default_bus",
    "emit",
]
