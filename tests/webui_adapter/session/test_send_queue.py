"""The send queue of a slow client, by property: pushed, popped, cut off and resumed in any order."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eventbus.protocol.cursor import Position, parse_cursor
from eventbus.protocol.policy import Keep
from eventbus.protocol.records import Record
from eventbus.protocol.recovery import resume
from tests.webui_adapter.page import Page
from tests.webui_adapter.parts import (
    USER,
    ManualClock,
    history,
    join,
    messages_of,
    new_session,
    payloads_of,
    publication,
    record,
    settle,
)
from webui_adapter.channels.hub import Hub
from webui_adapter.session.batch import Delivery
from webui_adapter.session.send_queue import OrderHeld, OrderRestored, SendQueue

TOPICS = tuple(f"{USER}:operation:{i}" for i in range(3))
NOW = 1_000_000


@dataclass(frozen=True)
class Push:
    topic: int
    keep: Keep
    lane: int
    pad: int
    life: int  # ms; 0: forever


@dataclass(frozen=True)
class Pop:
    limit: int


pushes = st.builds(
    Push,
    topic=st.integers(0, 2),
    keep=st.sampled_from(["log", "latest", "nothing"]),
    lane=st.integers(0, 2),
    pad=st.sampled_from([0, 0, 0, 300]),
    life=st.sampled_from([0, 0, 0, 2]),
)
steps = st.lists(pushes | st.builds(Pop, limit=st.sampled_from([1, 500, 5000])), max_size=40)


def delivery(offset: int, push: Push, now: int) -> Delivery:
    expires = now + push.life if push.life else 0
    return Delivery(USER, record(offset, TOPICS[push.topic], push.keep, push.lane, expires=expires, pad=push.pad))


@given(steps, st.integers(1, 12), st.sampled_from([700, 3000, 100_000]))
@settings(max_examples=150)
def test_events_are_dropped_only_by_the_rules_of_their_kind(  # noqa: C901 - a model in one piece
    ops: list[Push | Pop], limit: int, limit_bytes: int
) -> None:
    send_queue = SendQueue(limit, limit_bytes)
    offset, now = 0, NOW
    waiting: dict[int, Delivery] = {}
    handed: list[Delivery] = []

    def gone(drops: object) -> None:
        for drop in drops:
            kind = drop.item.keep
            match drop.reason:
                case "merged":
                    assert kind == "latest"
                case "expired":
                    assert 0 < drop.item.expires <= now
                case "shed":
                    assert kind != "log"
                case "full":
                    assert len(send_queue) > 0 or drop.item.size > limit_bytes
            waiting.pop(drop.item.record.offset, None)

    for op in ops:
        now += 1
        if isinstance(op, Push):
            offset += 1
            item = delivery(offset, op, now)
            waiting[offset] = item
            gone(send_queue.push(item, now))
        else:
            before = len(send_queue)
            served, drops = send_queue.pop(op.limit, now)
            gone(drops)
            events = [step for step in served if isinstance(step, Delivery)]
            assert bool(events) or not before or drops
            for event in events:
                del waiting[event.record.offset]
            handed += events
        assert len(send_queue) == len(waiting) <= limit
        assert sum(item.size for item in waiting.values()) <= limit_bytes
        states = Counter(item.key for item in waiting.values() if item.keep == "latest")
        assert all(count == 1 for count in states.values()), "at most one latest per key"
        assert (USER in send_queue) == bool(waiting)
    for topic in TOPICS:
        offsets = [event.record.offset for event in handed if event.topic == topic]
        assert offsets == sorted(offsets), "order within a topic"


@given(steps)
def test_hold_and_release_are_where_they_must_be(ops: list[Push | Pop]) -> None:
    """Without a hold the order is the channel's; a hold names what is safe; after a release nothing waits."""
    send_queue = SendQueue(1000, 1_000_000)
    offset, now = 0, NOW
    held, highest = False, 0
    waiting: set[int] = set()
    for op in ops:
        if isinstance(op, Push):
            offset += 1
            waiting.add(offset)
            for drop in send_queue.push(delivery(offset, op, now), now):
                waiting.discard(drop.item.record.offset)
            continue
        served, drops = send_queue.pop(op.limit, now)
        waiting -= {drop.item.record.offset for drop in drops}
        for step in served:
            match step:
                case OrderHeld():
                    assert not held
                    assert not {one for one in waiting if one <= step.offset}, "all up to there is handed over"
                    held = True
                case OrderRestored():
                    assert held
                    assert not waiting
                    assert step.offset >= highest
                    held = False
                case Delivery():
                    here = step.record.offset
                    waiting.discard(here)
                    assert held or here == min({here, *waiting}), "overtaking without a hold"
                    assert held or here > highest
                    highest = max(highest, here)


@given(
    st.lists(st.lists(pushes, min_size=1, max_size=5) | st.sampled_from(["block", "resume_writing"]), max_size=30),
    st.sampled_from([4, 1000]),
    st.data(),
)
@example(
    [[Push(0, "log", 2, 0, 0)], "block", [Push(0, "log", 2, 0, 0), Push(1, "log", 0, 0, 0)], "resume_writing"],
    1000,
    None,
)
@settings(max_examples=200)
def test_a_page_that_is_cut_off_anywhere_ends_with_every_log_event_once(  # noqa: C901, PLR0915 - a life in one piece
    ops: list[list[Push] | str], limit: int, data: st.DataObject | None
) -> None:
    hub = Hub()
    clock = ManualClock()
    session = new_session(hub, backlog_events=limit)
    session.output.clock = clock
    channel = join(hub, session)
    settle(hub, session, channel, history(0))
    published: list[Record] = []
    stream: list[bytes] = []

    def flush() -> None:
        stream.extend(payloads_of(b"".join(session.output.out)))
        session.output.out.clear()

    for op in ops:
        if op == "block":
            session.output.pause_writing()
        elif op == "resume_writing":
            session.output.resume_writing(400)
            flush()
        else:
            now = int(clock.wall() * 1000)
            records = [delivery(len(published) + i, push, now).record for i, push in enumerate(op, 1)]
            hub.receive(USER, publication(len(published), *records))
            published += records
            if not session.output.paused:
                flush()
        clock.at += 0.001
        if session.output.close_code is not None or hub.behind:
            break  # it reads the rest from the log, as a returning session does
    flush()
    cut = len(stream) if data is None else data.draw(st.integers(0, len(stream)), label="cut")
    page = Page()
    for payload in stream[:cut]:
        page.receive(payload)

    # Back again, with what Redis keeps.
    clock.at += 1
    now = int(clock.wall() * 1000)
    log = [one for one in published if one.keep == "log"]
    states = {one.key: one for one in published if one.keep == "latest"}
    reading = history(len(published), *log, snapshot=tuple(sorted(states.values(), key=lambda one: one.offset)))
    back = new_session(Hub(), user=None)
    back.output.clock = clock
    from webui_adapter.access.principal import Principal  # noqa: PLC0415 - read next to its use

    back.open(Principal("42", clock.wall() + 600, frozenset(), {}), "here")
    cursor = parse_cursor(page.cursor).get(USER)
    join(Hub(), back, since=cursor)
    back.subscriptions.replay(USER, resume(cursor, reading, [], now), None)
    for payload in payloads_of(b"".join(back.output.out)):
        page.receive(payload)

    seen = Counter(event["offset"] for event in page.events)
    assert max(seen.values(), default=1) == 1, "twice"
    # A page that was cut off before it heard of the channel starts with the present: then it has no past to miss.
    missing = {one.offset for one in log if not one.expires} - seen.keys() if cursor is not None else set()
    assert not missing
    for topic in TOPICS:
        offsets = [event["offset"] for event in page.events if event["topic"] == topic]
        assert offsets == sorted(offsets), "order within a topic"
    for key, newest in states.items():
        if not newest.expires:
            shown = [one.offset for one in published if one.key == key and one.offset in seen]
            assert shown, "a state that never came"
            assert shown[-1] == newest.offset, "an old state stays"
    assert cursor is None or page.positions[USER].offset == len(published)


@pytest.mark.parametrize(("keep", "reads"), [("log", True), ("latest", True), ("nothing", False)])
def test_an_overflow_reads_the_log_unless_no_client_would_miss_the_event(keep: Keep, reads: bool) -> None:
    hub = Hub()
    session = new_session(hub, backlog_events=3)
    channel = join(hub, session)
    settle(hub, session, channel, history(0))
    session.output.pause_writing()
    hub.receive(USER, publication(0, *(record(i) for i in range(1, 4))))
    assert session.output.close_code is None
    hub.receive(USER, publication(3, record(4, keep=keep)))
    assert session.output.close_code is None
    assert hub.behind == ([(session, USER)] if reads else [])
    recovery = session.subscriptions.channels[USER].recovery
    assert (recovery and recovery.since) == (Position(session.output.positions[USER].epoch, 0) if reads else None)
    assert session.output.counters["drop.full"] == 1


def test_a_state_that_had_to_make_room_is_not_just_forgotten() -> None:
    """The page would show the old one forever; so it reads the snapshot."""
    hub = Hub()
    session = new_session(hub, backlog_events=2)
    channel = join(hub, session)
    settle(hub, session, channel, history(0))
    session.output.pause_writing()
    hub.receive(USER, publication(0, record(1, keep="latest"), record(2), record(3)))
    assert session.output.counters["drop.shed"] == 1
    assert hub.behind == [(session, USER)]


def test_an_urgent_event_overtakes_with_its_topic() -> None:
    hub = Hub()
    session = new_session(hub)
    channel = join(hub, session)
    settle(hub, session, channel, history(0))
    session.output.pause_writing()
    messages_of(session)
    low, other = TOPICS[0], TOPICS[1]
    hub.receive(
        USER, publication(0, *(record(i, low, lane=2) for i in range(1, 6)), record(6, other), record(7, other, lane=0))
    )
    session.output.resume_writing(100_000)
    assert messages_of(session) == [
        ("subscribed", ("resumed", "e1", 0)),
        ("hold", 0),
        ("event", 6),
        ("event", 7),
        *(("event", i) for i in range(1, 6)),
        ("release", 7),
    ]


def test_memory_of_a_page_that_never_reads_is_bounded() -> None:
    hub = Hub()
    session = new_session(hub, backlog_events=100_000, backlog_bytes=100_000)
    channel = join(hub, session)
    settle(hub, session, channel, history(0))
    hub.receive(USER, publication(0, record(1)))
    messages_of(session)
    session.output.pause_writing()
    for i in range(1, 5000):
        hub.receive(USER, publication(i, record(i + 1, keep="nothing", pad=100)))
    assert session.output.close_code is None
    assert session.output.send_queue is not None
    assert session.output.send_queue._queue.bytes <= 100_000
    assert not session.output.out
    assert len(session.output.send_queue._offsets[USER].offsets) == len(session.output.send_queue)


OTHER = "user:other"


def plain(offset: int, lane: int = 1, channel: str = USER) -> Delivery:
    return Delivery(channel, record(offset, f"{channel}:operation:{lane}", lane=lane))


def written(queue: SendQueue) -> list[object]:
    """Pop everything: offsets, and what is announced between them."""
    steps, dropped = queue.pop(1_000_000, NOW)
    assert not dropped
    return [step.record.offset if isinstance(step, Delivery) else step for step in steps]


def test_events_in_order_hold_no_position() -> None:
    queue = SendQueue(100, 1_000_000)
    for offset in range(1, 4):
        assert not queue.push(plain(offset), NOW)
    assert written(queue) == [1, 2, 3]
    assert USER not in queue


def test_an_event_that_overtakes_holds_the_position_once_until_all_are_written() -> None:
    queue = SendQueue(100, 1_000_000)
    for offset, lane in ((4, 1), (5, 0), (6, 0)):
        queue.push(plain(offset, lane), NOW)
    assert written(queue) == [OrderHeld(USER, 3), 5, 6, 4, OrderRestored(USER, 6)]


def test_only_one_channel_is_discarded() -> None:
    queue = SendQueue(100, 1_000_000)
    for offset in (1, 2):
        queue.push(plain(offset), NOW)
    queue.push(plain(7, channel=OTHER), NOW)
    assert queue.first(USER) == 1
    assert queue.discard(USER) == 2
    assert (queue.first(USER), queue.first(OTHER), len(queue)) == (None, 7, 1)
    assert queue.discard(USER) == 0
    assert written(queue) == [7]
