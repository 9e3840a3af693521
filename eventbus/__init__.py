"""Typed events from Celery tasks to the browsers that wait for them: what both ends share."""

from eventbus.backends.redis.operation_client import Operations
from eventbus.bus import (
    Bus,
    aannounce,
    abroadcast,
    aemit,
    announce,
    broadcast,
    configure,
    default_bus,
    emit,
)
from eventbus.errors import (
    DuplicateEventName,
    EventBusError,
    GivenUp,
    InvalidEmission,
    InvalidName,
    InvalidPayload,
    InvalidStage,
    NoOperation,
    NoPromise,
    RateLimited,
    Refused,
    TooLarge,
    TooManyDeferred,
    Unavailable,
)
from eventbus.events.event import Event
from eventbus.events.receipt import Receipt
from eventbus.operations.store import OperationInfo
from eventbus.settings import BusSettings

__all__ = [
    "Bus",
    "BusSettings",
    "DuplicateEventName",
    "Event",
    "EventBusError",
    "GivenUp",
    "InvalidEmission",
    "InvalidName",
    "InvalidPayload",
    "InvalidStage",
    "NoOperation",
    "NoPromise",
    "OperationInfo",
    "Operations",
    "RateLimited",
    "Receipt",
    "Refused",
    "TooLarge",
    "TooManyDeferred",
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
