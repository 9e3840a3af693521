"""Typed events from Celery tasks to the browsers that wait for them: what both ends share."""

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
from eventbus.emission import Receipt
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
    TooLarge,
    TooManyDeferred,
    Unavailable,
)
from eventbus.events import Event
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
    "RateLimited",
    "Receipt",
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
