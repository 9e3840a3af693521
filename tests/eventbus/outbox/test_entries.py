"""How a batch becomes requests."""

from __future__ import annotations

from eventbus import BusSettings, Event
from eventbus.backends.ports import Write
from eventbus.events.encoder import EmissionBuilder
from eventbus.outbox.entries import group


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
