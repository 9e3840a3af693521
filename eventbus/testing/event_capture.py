"""``capture``: emissions are real, except for Redis and the thread."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields

from eventbus.backends.memory.adapters import MemoryBroker, MemoryPublisher, MemorySubscriber
from eventbus.bus import Bus
from eventbus.events.encoder import Emission, EmissionBuilder
from eventbus.events.event import Event
from eventbus.outbox.entries import Entry, group
from eventbus.outbox.outbox import Outbox
from eventbus.outbox.tracker import DeliveryTracker
from eventbus.process_bus import default_bus, override_bus
from eventbus.protocol.records import parse_publication
from eventbus.settings import BusSettings
from eventbus.testing.captured_event import CapturedEvent, emitted_of
from eventbus.testing.captured_events import Events

__all__ = ["capture"]


@contextmanager
def capture(*buses: Bus, settings: BusSettings | None = None) -> Iterator[Events]:
    """For a block, the events of this process's bus and of ``buses`` go into the ``Events`` and nowhere else.

    Validation and serialisation are real: a mistake in a call raises as in production. Receipts say ``published``, or
    ``duplicate`` for an id that came before. Nothing waits, so nothing is conflated, rate-limited or dropped: every
    state is captured. It needs no server and starts no thread. Blocks nest; the inner one has the events of the inner
    block.

    Args:
        *buses: captured in addition to the bus that ``emit`` uses, each with its settings.
        settings: limits of the process's bus; default: those that it has, or the environment's.

    Yields:
        The events.
    """
    settings_in_use = (settings or default_bus().settings).model_copy(update={"redis_url": "memory://", "spool": False})
    broker = MemoryBroker(settings_in_use)
    ledger = _Ledger(broker)
    own = Bus(settings_in_use, broker=broker)
    with ExitStack() as stack:
        for bus in (own, *buses):
            outbox = _Immediate(settings_in_use, ledger)
            stack.enter_context(bus.diverted(_CarryingBuilder(bus.settings), outbox, broker))
        stack.enter_context(override_bus(own))
        yield Events(ledger.emitted, acked=lambda channel, id_: broker.ack(channel, [id_]))


@dataclass(slots=True, eq=False)
class _Carrying(Emission):
    """An emission that still has its payload."""

    payload: Event | None = None


class _CarryingBuilder(EmissionBuilder):
    def build(self, topic: str, payload: Event, *, id_: str | None = None, now_us: int | None = None) -> Emission:
        built = super().build(topic, payload, id_=id_, now_us=now_us)
        # A copy: a list in the payload that the test changes later must not change the event.
        kept = payload.model_copy(deep=True)
        return _Carrying(**{part.name: getattr(built, part.name) for part in fields(Emission)}, payload=kept)


class _Ledger(MemorySubscriber):
    """Records the publications of a broker, in the thread that publishes."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker)
        self._written = broker
        self._publisher = MemoryPublisher(broker)
        self._lock = threading.Lock()
        self._entry: Entry | None = None
        self.emitted: list[CapturedEvent[Event]] = []

    def carry_out(self, entry: Entry, tracker: DeliveryTracker) -> None:
        """Publish an entry, record its events and settle its receipt."""
        with self._lock:
            self._entry = entry
            self._written.listen(entry.channel, self, on=True)
            requests, members = group([entry])
            tracker.settle(members, self._publisher.publish(requests))

    def deliver(self, channel: str, payload: bytes) -> None:  # noqa: ARG002 - each record names its topic
        """Called by the broker."""
        # An emission is one record. The broker completes the events of a transition, so they are read from the record.
        known = self._entry.payload if isinstance(self._entry, _Carrying) else None
        self.emitted += [emitted_of(json.loads(record.event), known) for record in parse_publication(payload).records]


class _Immediate(Outbox):
    """An outbox without waiting: ``put`` publishes in the caller's thread."""

    def __init__(self, settings: BusSettings, ledger: _Ledger) -> None:
        super().__init__(settings, lambda: MemoryPublisher(MemoryBroker(settings)))
        self._ledger = ledger
        self._tracker = DeliveryTracker(Counter(), lambda: False)

    @property
    def flushed(self) -> int:
        """Number of published entries."""
        return self._tracker.flushed

    def start(self) -> None:
        """There is no thread to start."""

    def put(self, entry: Entry) -> None:
        """See ``Outbox``."""
        self._ledger.carry_out(entry, self._tracker)
