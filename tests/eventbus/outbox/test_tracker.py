"""Delivery status: a waiter hears of every outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from eventbus import BusSettings, Event
from eventbus.backends.ports import Published
from eventbus.errors import RateLimited, Refused
from eventbus.events.encoder import Emission, EmissionBuilder
from eventbus.flow.priority_queue import Dropped
from eventbus.outbox.tracker import DeliveryTracker
from eventbus.protocol.cursor import Position


class Step(Event, name="tracker.step"):
    n: int = 0


BUILDER = EmissionBuilder(BusSettings())
OUTCOMES: dict[str, Callable[[DeliveryTracker, Emission], None]] = {
    "published": lambda tracker, entry: tracker.settle([[entry]], [Published(Position("e", 1), [1], 0, 0)]),
    "duplicate": lambda tracker, entry: tracker.settle([[entry]], [Published(Position("e", 1), [-1], 0, 0)]),
    "refused": lambda tracker, entry: tracker.settle([[entry]], [Refused("no")]),
    "withdrawn": lambda tracker, entry: tracker.withdraw(entry),
    "full": lambda tracker, entry: tracker.drop([Dropped(entry, "full")]),
    "merged": lambda tracker, entry: tracker.drop_one(entry, "merged"),
    "ended": lambda tracker, _: tracker.drop_all("ended"),
    "rate": lambda tracker, entry: tracker.limit(entry, 5.0, 0.25),
}


def entry() -> Emission:
    return BUILDER.build("user:ann:1", Step())


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_waiter_is_called_with_every_outcome(outcome: str) -> None:
    tracker, one, later = DeliveryTracker(Counter(), lambda: False), entry(), entry()
    tracker.add(one)
    called: list[bool] = []
    tracker.call_when_settled(called.append)
    tracker.notify_waiters()
    assert called == [], "it is open"
    tracker.add(later)
    OUTCOMES[outcome](tracker, one)
    assert called == [True], "the later one does not count"
    assert not tracker.is_open(one)
    OUTCOMES[outcome](tracker, later)
    assert called == [True], "once"
    assert tracker.depth == 0


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_each_outcome_is_counted_and_said(outcome: str, caplog: pytest.LogCaptureFixture) -> None:
    dropped: Counter[str] = Counter()
    tracker, one = DeliveryTracker(dropped, lambda: False), entry()
    tracker.add(one)
    OUTCOMES[outcome](tracker, one)
    well = outcome in {"published", "duplicate", "withdrawn"}
    assert dropped == ({} if well else {outcome: 1})
    assert tracker.flushed == (outcome in {"published", "duplicate"})
    assert len(caplog.records) == (0 if well or outcome == "merged" else 1)
    assert one.receipt.status == {"withdrawn": "waiting", "refused": "dropped"}.get(
        outcome, outcome if well or outcome == "merged" else "dropped"
    )


def test_two_waiters_of_which_one_came_later() -> None:
    tracker, first, second = DeliveryTracker(Counter(), lambda: False), entry(), entry()
    called: list[str] = []
    tracker.add(first)
    tracker.call_when_settled(lambda _: called.append("early"))
    tracker.add(second)
    tracker.call_when_settled(lambda _: called.append("late"))
    tracker.drop_one(second, "full")
    assert called == []
    tracker.drop_one(first, "full")
    assert called == ["early", "late"]


def test_who_waits_for_the_disk_waits_until_it_is_empty_or_redis_is_down() -> None:
    on_disk = [True]
    tracker, one = DeliveryTracker(Counter(), lambda: on_disk[0]), entry()
    called: list[bool] = []
    tracker.add(one)
    tracker.call_when_settled(called.append)
    tracker.spooled(one)
    tracker.notify_waiters()
    assert (called, one.receipt.status) == ([], "spooled")
    on_disk[0] = False
    tracker.notify_waiters()
    assert called == [True]
    tracker.add(entry())
    tracker.call_when_settled(called.append)
    tracker.release_waiters()
    tracker.release_waiters()
    assert called == [True, False]


def test_an_offset_is_the_one_of_its_entry() -> None:
    tracker, entries = DeliveryTracker(Counter(), lambda: False), [entry(), entry(), entry()]
    tracker.settle([entries[:1], entries[1:]], [Refused("no"), Published(Position("e", 9), [8, -3], 0, 0)])
    facts = [(one.receipt.status, one.receipt.offset) for one in entries]
    assert facts == [("dropped", None), ("published", 8), ("duplicate", 3)]
    assert entries[0].receipt.reason == "no"


def test_a_strict_caller_gets_the_reason() -> None:
    tracker, fine, limited, refused = DeliveryTracker(Counter(), lambda: False), entry(), entry(), entry()
    tracker.check(fine, 5.0)
    tracker.limit(limited, 5.0, 0.25)
    with pytest.raises(RateLimited, match="more than 5 events a second") as error:
        tracker.check(limited, 5.0)
    assert (error.value.limit, error.value.retry_after) == (5.0, 0.25)
    tracker.drop_one(refused, "full")
    with pytest.raises(Refused, match="full"):
        tracker.check(refused, 5.0)
