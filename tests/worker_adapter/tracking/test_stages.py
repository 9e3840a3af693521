"""``stages``, bytes and time left, as a page receives them."""

import contextlib
import io
import itertools
from importlib import import_module

import pytest

from tests.worker_adapter import app as a
from tests.worker_adapter.listening import END, SubscriptionListener
from worker_adapter import progress, stages, start_operation, track_file


@pytest.fixture
def always_due(monkeypatch):
    monkeypatch.setenv("EVENTBUS_WORKER_PROGRESS_INTERVAL", "1e-9")


def numbers(event):
    return {name: event[name] for name in ("done", "total", "share", "state")}


@pytest.mark.usefixtures("application", "worker")
@pytest.mark.parametrize("fails", [False, True])
def test_in_a_worker(redis_url, fails):
    listening = SubscriptionListener(redis_url, f"parts-{fails}")
    start_operation(a.parts.si(n=20_000, fails=fails), user=listening.user)
    events = listening.until(lambda heard: any(e.type in END for e in heard))
    listening.close()
    said = [e.data for e in events if e.type == "task.progress"]
    assert {data["stage"] for data in said} == {""}
    shares = [data["share"] for data in said]
    assert shares == sorted(shares)
    names = [name for name, _ in itertools.groupby(data["part"]["name"] if data["part"] else "" for data in said)]
    if fails:
        assert said[-1]["state"] == "failed"
        assert said[-1]["share"] == pytest.approx(0.7)
        assert (said[-1]["part"]["name"], said[-1]["part"]["done"]) == ("embed/encode", 10_000)
        assert names[-1] == "embed/encode"
    else:
        assert numbers(said[-1]) == {"done": 10, "total": 10, "share": 1, "state": "done"}
        assert all(data["share"] < 1 for data in said[:-1])
        assert names[-1] == ""
    assert all(data["left"] is None or data["left"] >= 0 for data in said)
    assert len(said) < 30


@pytest.mark.usefixtures("always_due")
def test_one_event_has_the_whole_and_the_running_stage(states):
    with stages(read=1, embed=8, store=1, stage="index", message="a book") as parts:
        assert numbers(states()["index"]) == {"done": 0, "total": 10, "share": 0, "state": "running"}
        assert states()["index"]["part"] is None
        with parts.stage("read", total=4, unit="pages") as steps:
            steps.step(2, "page 2")
        event = states()["index"]
        assert (event["done"], event["share"], event["message"]) == (0.5, 0.05, "a book")
        part = event["part"]
        assert (part["name"], part["done"], part["total"], part["share"]) == ("read", 2, 4, 0.5)
        assert (part["unit"], part["message"]) == ("pages", "page 2")
        with parts.stages("embed", split=1, encode=3) as inner:
            part = states()["index"]["part"]
            assert (part["name"], part["done"], part["total"]) == ("embed", 0, 4)
            with inner.stage("encode"):
                event = states()["index"]
                assert (event["done"], event["part"]["name"]) == (1, "embed/encode")
                assert (event["part"]["total"], event["part"]["share"], event["part"]["left"]) == (None, None, None)
    with parts.stage("store") as too_late:
        too_late.step()
    event = states()["index"]
    assert numbers(event) == {"done": 10, "total": 10, "share": 1, "state": "done"}
    assert (event["part"], event["left"]) == (None, 0)


def test_the_begin_of_a_stage_is_reported_immediately(states):
    """Otherwise a stage without steps would run for an hour under the name of the stage before it."""
    with stages(read=1, store=1) as parts:
        with parts.stage("read"):
            pass
        with parts.stage("store"):
            assert states()[""]["part"]["name"] == "store"
            assert states()[""]["share"] == 0.5


def test_a_loop_that_ended_early_is_complete_when_the_next_stage_begins(states):
    with stages(read=1, store=1) as parts:
        for _ in parts.track("read", range(10)):
            break
        assert parts.share == 0
        with parts.stage("store"):
            assert parts.share == 0.5
    with contextlib.suppress(KeyError), stages(read=1, store=1, stage="b") as parts:
        for n in parts.track("read", range(4)):
            if n == 2:
                raise KeyError
    assert numbers(states()["b"]) == {"done": 0.5, "total": 2, "share": 0.25, "state": "failed"}


@pytest.mark.usefixtures("always_due")
def test_rate_and_time_left_are_computed_here(states, monkeypatch):
    clock = [100.0]
    for module in ("tracking.reporter", "tracking.steps"):
        monkeypatch.setattr(import_module(f"worker_adapter.{module}"), "monotonic", lambda: clock[0])
    with progress(100) as steps:
        assert (states()[""]["rate"], states()[""]["left"]) == (None, None)
        clock[0] += 2
        steps.step(20)
        assert (states()[""]["rate"], states()[""]["left"], states()[""]["share"]) == (10, 8, 0.2)
        clock[0] += 4
        steps.step(10)
        assert (states()[""]["rate"], states()[""]["left"]) == (5, 14)
        clock[0] += 1
        steps.set(150)
        assert (states()[""]["share"], states()[""]["left"]) == (1, 0)


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book"
    path.write_bytes(b"".join(b"line %d\n" % n for n in range(1000)))
    return path


WAYS = {
    "read": lambda file: file.read(),
    "read1": lambda file: b"".join(iter(lambda: file.read1(100), b"")),
    "chunks": lambda file: b"".join(iter(lambda: file.read(100), b"")),
    "lines": b"".join,
    "readlines": lambda file: b"".join(file.readlines()),
    "readline": lambda file: b"".join(iter(file.readline, b"")),
    "text": lambda file: io.TextIOWrapper(file, newline="").read().encode(),
    "readinto": lambda file: bytes(memoryview(room := bytearray(20_000))[: file.readinto(room)]),
    "readinto1": lambda file: bytes(memoryview(room := bytearray(20_000))[: file.readinto1(room)]),
    "twice": lambda file: (file.read(), file.seek(0), file.read())[2],
}


@pytest.mark.parametrize("way", WAYS)
def test_a_file_counts_its_bytes_in_every_way_of_reading(states, book, way):
    whole = book.read_bytes()
    with track_file(book, stage="read") as file:
        assert WAYS[way](file) == whole
    event = states()["read"]
    assert (event["done"], event["total"], event["unit"]) == (len(whole), len(whole), "bytes")
    assert numbers(event)["state"] == "done"


def test_the_owner_of_a_file_closes_it(states, book):
    with book.open("rb") as mine:
        mine.read(1000)
        with track_file(mine) as file:
            assert file.tell() == 1000
            file.seek(1100)
            assert len(file.read(400)) == 400
        assert not mine.closed
        assert (states()[""]["done"], states()[""]["total"]) == (500, book.stat().st_size - 1000)
    with track_file(book) as file:
        inner = file._file
    assert inner.closed
    assert file.closed
    with book.open() as text, pytest.raises(TypeError, match="'rb'"):
        track_file(text)


def test_a_pipe_has_no_total_and_a_stage_may_read_a_file(states, book):
    class Pipe(io.BytesIO):
        def seekable(self):
            return False

    with track_file(Pipe(b"abc"), stage="pipe") as file:
        file.read()
    assert (states()["pipe"]["done"], states()["pipe"]["total"]) == (3, None)
    with stages(read=3, store=1) as parts:
        with parts.track_file("read", book) as file:
            file.read(book.stat().st_size // 2)
            assert parts.share == pytest.approx(0.375, rel=0.01)
        assert parts.share == 0.75


def test_none_as_a_size_reads_all_there_is(states, tmp_path):
    book = tmp_path / "two-lines"
    book.write_bytes(b"first\nsecond")
    with track_file(book, stage="none") as file:
        assert file.readline(3) == b"fir"
        assert file.readline(None) == b"st\n"
        assert file.readline() == b"second"
        assert file.seek(0) == 0
        assert file.read(None) == b"first\nsecond"
        assert file.read() == b""
    assert states()["none"]["done"] == len(book.read_bytes())
