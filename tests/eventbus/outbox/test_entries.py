"""How a batch becomes requests."""

from __future__ import annotations

from eventbus import BusSettings, Event
from eventbus.backends.ports import RecordTransitions, Write
from eventbus.events.encoder import EmissionBuilder
from eventbus.operations.changes import EventStamp
from eventbus.operations.state import TaskTransition, TransitionKind
from eventbus.outbox.entries import TransitionEntry, group


class Fact(Event, name="entries.fact"):
    n: int


def test_a_channel_s_events_are_one_request_in_order_but_not_more_than_one_script_call_takes():
    builder = EmissionBuilder(BusSettings())
    batch = [builder.build(f"user:{n % 2}:operation:9", Fact(n=n)) for n in range(1_200)]
    requests, members = group(batch)
    assert [(r.channel, len(r.emissions)) for r in requests if isinstance(r, Write)] == [
        ("user:0", 256),
        ("user:0", 256),
        ("user:0", 88),
        ("user:1", 256),
        ("user:1", 256),
        ("user:1", 88),
    ]
    assert [entry for entries in members for entry in entries] == batch[::2] + batch[1::2]


def transition(operation: str, kind: TransitionKind, stamp: str) -> TransitionEntry:
    name = f"user:ann:operation:{operation}"
    return TransitionEntry("user:ann", name, operation, TaskTransition(kind, "a"), lambda: EventStamp(stamp, 1, ""))


def test_events_and_transitions_keep_their_order_and_neighbours_share_a_request():
    builder = EmissionBuilder(BusSettings())
    fact = [builder.build("user:ann:operation:9", Fact(n=n)) for n in range(4)]
    started, done, other = transition("9", "started", "s"), transition("9", "done", "d"), transition("8", "done", "o")
    batch = [fact[0], started, done, other, fact[1], fact[2], started, fact[3]]
    requests, members = group(batch)
    assert [entry for entries in members for entry in entries] == batch
    assert [len(entries) for entries in members] == [1, 2, 1, 2, 1, 1]
    assert [type(request) for request in requests] == [Write, *[RecordTransitions] * 2, Write, RecordTransitions, Write]
    both = requests[1]
    assert isinstance(both, RecordTransitions)
    assert (both.channel, both.operation, [one.kind for one in both.transitions]) == (
        "user:ann",
        "9",
        ["started", "done"],
    )
    assert both.stamp.id == "d", "the stamp of the last one"
    assert (started.lane, started.keep, started.key) == (1, "log", None)
