"""Delivery from the hub to sessions: the fast path and the filtered one. Pure."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventbus.protocol.cursor import Position
from eventbus.protocol.records import Record
from tests.webui_adapter.channels.test_hub import ONE, TWO, live
from tests.webui_adapter.page import Page
from tests.webui_adapter.parts import (
    EVENT_STREAM,
    USER,
    frames_of,
    heard,
    history,
    join,
    messages_of,
    new_session,
    publication,
    record,
    settle,
)
from webui_adapter.channels.channel import Channel
from webui_adapter.channels.hub import Hub
from webui_adapter.protocol.commands import Subscribe


@given(
    st.lists(
        st.lists(
            st.sampled_from([(ONE, "log", 1), (TWO, "log", 0), (ONE, "latest", 2), (TWO, "nothing", 1)]),
            min_size=1,
            max_size=4,
        ),
        max_size=8,
    ),
    st.data(),
)
def test_the_fast_path_and_the_filtered_one_send_the_same(  # noqa: C901 - three ways side by side
    batches: list[list[tuple[str, str, int]]], data: st.DataObject
) -> None:
    """One reads everything by ``*``; one by all its patterns; one over SSE: whatever blocks when, all see the same."""
    hub = Hub()
    readers = [new_session(hub), new_session(hub), new_session(hub, encoder=EVENT_STREAM)]
    topics_of_readers = [(f"{USER}:*",), (ONE, TWO), (f"{USER}:*",)]
    for reader, topics in zip(readers, topics_of_readers, strict=True):
        for topic in topics:
            channel = join(hub, reader, topic)
            settle(hub, reader, channel, history(3, record(3)))
    offset = 3
    for reader in readers:
        reader.output.out.clear()
    said: list[bytes] = []
    for batch in batches:
        records = [record(offset + i, topic, keep, lane) for i, (topic, keep, lane) in enumerate(batch, 1)]
        hub.receive(USER, publication(offset, *records))
        offset += len(batch)
        match data.draw(st.sampled_from(["block", "resume_writing", "nothing"])):
            case "block":
                for reader in readers:
                    reader.output.pause_writing()
            case "resume_writing":
                for reader in readers:
                    reader.output.resume_writing(300)
    for reader in readers:
        while reader.output.send_queue is not None:
            reader.output.resume_writing(300)
    assert {session.output in hub.channels[USER].whole for session in readers[::2]} == {True}
    assert readers[1] in hub.channels[USER].partial
    whole, partial = (frames_of(reader) for reader in readers[:2])
    strip = [{**frame, "time": 0} for frame in whole]
    assert strip == [{**frame, "time": 0} for frame in partial]
    stream = b"".join(readers[2].output.out)
    said = [line[6:] for line in stream.split(b"\n") if line.startswith(b"data: ")]
    import json  # noqa: PLC0415 - read next to its use

    assert [{**json.loads(frame), "time": 0} for frame in said] == strip


def test_a_session_that_keeps_up_costs_an_append_of_shared_bytes() -> None:
    hub, _, session = live(3)
    other = new_session(hub)
    settle(hub, other, join(hub, other), history(3, record(3)))
    other.output.out.clear()
    hub.dirty.clear()
    hub.receive(USER, publication(3, *(record(i) for i in range(4, 9))))
    assert len(session.output.out) == 1
    assert session.output.out[0] is other.output.out[0]
    hub.receive(USER, publication(8, record(9)))
    assert len(session.output.out) == 2
    assert hub.dirty.count(session.output) == 1


def test_deliveries_are_counted_exactly() -> None:
    hub, _, _ = live(3)
    assert (hub.events, hub.deliveries) == (0, 0), "a history is none"
    hub.receive(USER, publication(3, record(4, ONE), record(5, ONE)))
    assert (hub.events, hub.deliveries, [receivers for _, receivers in hub.routed]) == (2, 2, [1, 1])


def test_deliveries_to_readers_of_a_part_are_counted_exactly() -> None:
    hub, _, _ = live(3)
    for topic in (ONE, TWO, TWO):
        reader = new_session(hub)
        settle(hub, reader, join(hub, reader, topic), history(3, record(3)))
    before = hub.deliveries
    hub.receive(USER, publication(3, record(4, ONE), record(5, ONE), record(6, TWO)))
    assert hub.deliveries - before == 3 + 2 + 1 + 1
    assert sum(receivers for _, receivers in hub.routed) == hub.deliveries - before


def _lossy(data: st.DataObject, hub: Hub, channel: Channel, log: list[Record], sent: int) -> int:
    """Publish some of the log from ``sent`` on, lose some of it on the way, recovery what shows."""
    while sent < len(log):
        size = data.draw(st.integers(1, 4))
        batch = log[sent : sent + size]
        sent += len(batch)
        if data.draw(st.booleans()):
            continue
        if not hub.receive(USER, publication(batch[0].offset - 1, *batch)) or not channel.live:
            reading = log[: data.draw(st.integers(sent - len(batch), len(log)))]
            while hub.recover(channel, history(len(reading), *reading), 0) is None:
                reading = log
            return max(sent, 0)
    return sent


@given(st.integers(1, 30), st.data())
def test_a_page_gets_each_event_once_in_order_whatever_is_lost_in_between(count: int, data: st.DataObject) -> None:
    hub = Hub()
    log = [record(i) for i in range(1, count + 1)]
    session = new_session(hub)
    page = Page()
    channel = join(hub, session, since=Position("", 0))
    settle(hub, session, channel, history(0))
    sent = 0
    while sent < len(log):
        sent = _lossy(data, hub, channel, log, sent)
    hub.suspend(channel)
    assert hub.recover(channel, history(count, *log), 0) is not None
    heard(session, page)
    offsets = [event["offset"] for event in page.events]
    assert offsets == list(range(1, count + 1))
    assert all(a < b for a, b in pairwise(offsets))
    assert page.cursor == f"{USER}=e1.{count}"


@pytest.mark.parametrize("encoder", ["whole", "partial"])
def test_a_publication_in_the_middle_of_a_flush_is_not_lost(encoder: str) -> None:
    """A line's flush makes the hub hand on more: it comes with the next write, not twice and not never."""
    hub, _, session = live(3, *((ONE, TWO) if encoder == "partial" else ()))
    hub.receive(USER, publication(3, record(4, ONE)))
    taken = list(session.output.out)
    session.output.out.clear()
    hub.dirty.clear()
    hub.receive(USER, publication(4, record(5, TWO)))
    assert hub.dirty == [session.output]
    session.output.out[:0] = taken
    assert messages_of(session) == [("event", 4), ("event", 5)]


def test_a_replay_waits_for_an_idle_moment() -> None:
    _, _, session = live(3)
    calls: list[int] = []
    session.output.call_when_idle(lambda: calls.append(1))
    assert calls == [1]
    session.output.pause_writing()
    session.output.call_when_idle(lambda: calls.append(2))
    session.output.call_when_idle(lambda: calls.append(3))
    assert calls == [1]
    session.output.resume_writing(1000)
    assert calls == [1, 2, 3]


def test_an_idle_moment_lasts_until_something_is_written() -> None:
    _, _, session = live(3)
    calls: list[int] = []
    session.output.pause_writing()
    session.output.call_when_idle(lambda: session.send("bus.ok", {}))
    session.output.call_when_idle(lambda: calls.append(2))
    session.output.resume_writing(1000)
    assert calls == []
    session.output.out.clear()
    session.output.resume_writing(1000)
    assert calls == [2]


def test_a_recovery_keeps_the_reference_of_its_command() -> None:
    subscription = new_session().subscriptions.add(Subscribe(ONE, None, "a"), 0)
    assert subscription.recovery is not None
    assert subscription.recovery.since is None
    assert subscription.recovery.command.ref == "a"
