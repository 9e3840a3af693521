"""Entries on their way: in memory only, or on disk too."""

from __future__ import annotations

from eventbus import BusSettings, Event
from eventbus.events.encoder import Emission, EmissionBuilder
from eventbus.outbox.entries import Entry
from eventbus.outbox.in_flight import InFlight, InFlightBatch


class Step(Event, name="in_flight.step"):
    n: int = 0


BUILDER = EmissionBuilder(BusSettings())


def entry(n: int) -> Emission:
    return BUILDER.build("user:ann:1", Step(n=n))


def test_a_batch_that_moved_to_the_disk_is_given_up_and_the_next_one_is_not() -> None:
    entries: list[Entry] = [entry(1), entry(2)]
    in_flight = InFlight()
    assert (in_flight.entries, in_flight.spooled) == ([], False)
    in_flight.take(entries)
    assert not in_flight.spooled
    in_flight.moved_to_disk(entries[:1])
    assert (in_flight.entries, in_flight.spooled) == (entries[:1], False), "one is in memory only"
    in_flight.moved_to_disk([])
    assert (in_flight.entries, in_flight.spooled) == ([], True)
    in_flight.take(entries)
    assert (in_flight.entries, in_flight.spooled) == (entries, False)
    in_flight.moved_to_disk([])
    in_flight.clear()
    assert (in_flight.entries, in_flight.spooled) == ([], False)


def test_a_batch_of_entries_is_a_batch_of_requests() -> None:
    entries = [entry(1), entry(2)]
    batch = InFlightBatch.of(entries, 1)
    assert ([len(members) for members in batch.members], len(batch.requests), batch.from_spool) == ([2], 1, 1)
    assert InFlightBatch.of(entries).from_spool == 0


def test_an_empty_batch_takes_nothing_from_the_spool() -> None:
    """Otherwise its end would remove an entry from the disk that was never sent."""
    empty = InFlightBatch([], [])
    assert (empty.entries, empty.from_spool, empty.spooled) == ([], 0, False)
