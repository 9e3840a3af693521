"""``resume``: whole or declared, for every history that a channel can have."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventbus.protocol.cursor import BEGINNING, Position
from eventbus.protocol.history import History, LogEntry
from eventbus.protocol.records import Record
from eventbus.protocol.recovery import Gap, resume

EPOCH = "aa"


def record(offset: int, keep="log", key=None, expires=0) -> Record:
    return Record(offset, 1, keep, expires, 0, "t.e", "user:1:operation:1", key, b"{}")


class Channel:
    """A model of what a channel keeps, built event by event."""

    def __init__(self) -> None:
        self.events: list[Record] = []
        self.log: list[LogEntry] = []
        self.snapshot: dict[str, Record] = {}
        self.logged = 0

    def publish(self, keep: str, key: str) -> None:
        new = record(len(self.events) + 1, keep, key if keep == "latest" else None)
        self.events.append(new)
        if keep == "log":
            self.log.append(LogEntry(self.logged, new))
            self.logged = new.offset
        elif keep == "latest":
            self.snapshot[key] = new

    def history(self, after: int, trimmed: int) -> History:
        log = [entry for entry in self.log[trimmed:] if entry.record.offset > after]
        states = sorted(self.snapshot.values(), key=lambda r: r.offset)
        return History(Position(EPOCH, len(self.events)), self.logged, log, states)


def offsets(resumption) -> list[int]:
    return [r.offset for r in resumption.records]


published = st.lists(st.tuples(st.sampled_from(["log", "latest", "nothing"]), st.sampled_from("xyz")), max_size=30)


@given(published, published, st.data())
@settings(max_examples=400)
def test_every_log_event_is_brought_or_a_gap_declared(before, after, data):
    channel = Channel()
    for keep, key in before:
        channel.publish(keep, key)
    read_at = len(channel.events)
    cursor = data.draw(st.integers(0, read_at))
    trimmed = data.draw(st.integers(0, len(channel.log)))
    overlap = data.draw(st.integers(0, read_at))
    history = channel.history(cursor, trimmed)
    for keep, key in after:
        channel.publish(keep, key)
    live = channel.events[overlap:]

    result = resume(Position(EPOCH, cursor), history, live, now_ms=1)

    lost = [e.record.offset for e in channel.log[:trimmed] if e.record.offset > cursor]
    assert (result.gap is not None) == bool(lost)
    if lost:
        assert result.gap == Gap("trimmed")
    else:
        due = [e.offset for e in channel.events if e.keep == "log" and e.offset > cursor]
        assert [r.offset for r in result.records if r.keep == "log"] == due
    assert offsets(result) == sorted(set(offsets(result)))
    assert all(offset > cursor for offset in offsets(result))
    assert result.position == Position(EPOCH, len(channel.events))
    # The present state is complete either way: the newest of each key that the reader has not seen.
    newest = {r.key: r.offset for r in result.records if r.keep == "latest"}
    for key, state in channel.snapshot.items():
        assert state.offset <= cursor or newest[key] == state.offset


@given(published)
def test_a_newcomer_gets_the_present_and_not_the_past(before):
    channel = Channel()
    for keep, key in before:
        channel.publish(keep, key)
    result = resume(None, channel.history(0, 0), [], now_ms=1)
    assert result.gap is None
    assert result.start.offset == 0
    assert offsets(result) == sorted(state.offset for state in channel.snapshot.values())


@given(published)
def test_from_the_beginning_means_all_of_the_log(before):
    channel = Channel()
    for keep, key in before:
        channel.publish(keep, key)
    result = resume(BEGINNING, channel.history(0, 0), [], now_ms=1)
    assert result.gap is None
    assert [r.offset for r in result.records if r.keep == "log"] == [e.record.offset for e in channel.log]


def test_an_offset_of_another_epoch_is_never_trusted():
    channel = Channel()
    channel.publish("log", "")
    channel.publish("latest", "x")
    result = resume(Position("other", 1), channel.history(1, 0), [], now_ms=1)
    assert result.gap == Gap("epoch")
    assert offsets(result) == [2]
    assert result.start == Position(EPOCH, 0)


def test_a_cursor_beyond_the_end_is_a_gap():
    channel = Channel()
    channel.publish("latest", "x")
    result = resume(Position(EPOCH, 7), channel.history(7, 0), [], now_ms=1)
    assert result.gap == Gap("ahead")
    assert offsets(result) == [1]


def test_trimming_away_everything_does_not_look_like_completeness():
    channel = Channel()
    for _ in range(3):
        channel.publish("log", "")
    assert resume(Position(EPOCH, 1), channel.history(1, 3), [], now_ms=1).gap == Gap("trimmed")
    assert resume(Position(EPOCH, 3), channel.history(3, 3), [], now_ms=1).gap is None


def test_a_hole_in_what_arrived_is_a_gap():
    channel = Channel()
    channel.publish("log", "")
    history = channel.history(0, 0)
    assert resume(BEGINNING, history, [record(3)], now_ms=1).gap == Gap("hole")
    assert resume(BEGINNING, history, [record(2), record(4)], now_ms=1).gap == Gap("hole")


def test_what_has_expired_is_left_out():
    history = History(
        Position(EPOCH, 2), 2, [LogEntry(0, record(1, expires=10)), LogEntry(1, record(2, expires=30))], []
    )
    assert offsets(resume(BEGINNING, history, [record(3, "nothing", expires=10)], now_ms=20)) == [2]


def test_an_empty_channel_is_whole_for_every_cursor():
    nothing = History(Position("", 0), 0, [], [])
    assert resume(None, nothing, [], 1).gap is None
    assert resume(BEGINNING, nothing, [], 1).gap is None
    assert resume(Position("aa", 5), nothing, [], 1).gap == Gap("epoch")


def trimmed_history(cursor: int) -> History:
    """Two log entries, of which the first is trimmed; the history ends at 2."""
    channel = Channel()
    channel.publish("log", "")
    channel.publish("log", "")
    return channel.history(cursor, 2)


def test_a_hole_behind_another_gap_needs_another_reading():
    """The states and events in the hole are in no part of the answer, so the caller must read again."""
    for cursor in (Position("other", 1), Position(EPOCH, 9), BEGINNING):
        result = resume(cursor, trimmed_history(cursor.offset), [record(4)], now_ms=1)
        assert result.gap == Gap("hole"), cursor
        joined = resume(cursor, trimmed_history(cursor.offset), [record(3), record(4)], now_ms=1)
        assert joined.gap is not None
        assert joined.gap.reason != "hole", cursor


def paged(entries: list[Record], more: bool = True) -> History:
    log = [LogEntry(entry.offset - 1, entry) for entry in entries if entry.keep == "log"]
    states = [entry for entry in entries if entry.keep == "latest"]
    return History(Position(EPOCH, 10), 10, log, states, more=more)


def test_a_page_of_another_epoch_is_a_gap():
    page = paged([record(1), record(2)])
    result = resume(Position("other", 1), page, [], now_ms=1)
    assert (result.gap, result.more, result.position) == (Gap("epoch"), False, Position(EPOCH, 10))


def test_a_page_of_a_trimmed_log_is_a_gap():
    result = resume(Position(EPOCH, 2), paged([record(5), record(6)]), [], now_ms=1)
    assert (result.gap, result.more, result.position) == (Gap("trimmed"), False, Position(EPOCH, 10))


def test_a_page_brings_the_states_up_to_its_last_entry():
    page = paged([record(1, "latest", "a"), record(3), record(4, "latest", "b"), record(5), record(6, "latest", "c")])
    page = History(
        page.position, 5, [LogEntry(0, page.log[0].record), LogEntry(3, page.log[1].record)], page.snapshot, True
    )
    result = resume(Position(EPOCH, 1), page, [record(11)], now_ms=1)
    assert (result.more, result.gap, result.position) == (True, None, Position(EPOCH, 5))
    assert offsets(result) == [3, 4, 5], "not the state that the reader has, nor the one beyond the page"


def forked(*, kept: Position | None = None, lossy: bool = False) -> History:
    """Ten log entries. The channel's epoch before ended at 6."""
    log = [LogEntry(offset - 1, record(offset)) for offset in range(1, 11)]
    return History(Position(EPOCH, 10), 10, log, [], kept=kept, lossy=lossy)


@pytest.mark.parametrize(
    ("cursor", "kept", "lossy", "reason"),
    [
        (Position("b", 6), Position("b", 6), False, None),
        (Position("b", 3), Position("b", 6), False, None),
        (Position("b", 0), Position("b", 6), False, None),
        (Position("b", 7), Position("b", 6), False, "epoch"),
        (Position("c", 3), Position("b", 6), False, "epoch"),
        (Position("b", 6), Position("b", 6), True, None),
        (Position("b", 3), None, True, "epoch"),
        (Position("b", 0), None, True, "epoch"),
        (BEGINNING, Position("b", 6), False, None),
        (BEGINNING, Position("b", 6), True, "epoch"),
        (BEGINNING, None, True, "epoch"),
        (Position(EPOCH, 8), None, True, None),
        (None, None, True, None),
    ],
)
def test_a_new_epoch(cursor: Position | None, kept: Position | None, lossy: bool, reason: str | None) -> None:
    """A page continues from the epoch before, up to the fork, if nothing published was lost. "From the beginning"
    asks for the channel's first event, which may be among the lost ones."""
    found = resume(cursor, forked(kept=kept, lossy=lossy), [], now_ms=1)
    assert found.gap == (None if reason is None else Gap(reason))
    if reason is None and cursor is not None:
        assert offsets(found) == [*range(cursor.offset + 1, 11)]


def test_a_trimmed_log_after_a_new_epoch_keeps_the_states_that_the_page_has() -> None:
    """Up to the fork the offsets of both epochs mean the same."""
    states = [record(2, "latest", "a"), record(8, "latest", "b")]
    history = History(Position(EPOCH, 10), 9, [LogEntry(5, record(9))], states, kept=Position("b", 6))
    found = resume(Position("b", 4), history, [], now_ms=1)
    assert (found.gap, found.start, offsets(found)) == (Gap("trimmed"), Position(EPOCH, 4), [8])
