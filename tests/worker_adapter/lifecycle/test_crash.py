"""A worker that ends: killed in the middle of emitting, and stopped with events still waiting."""

import os
import signal

import pytest

from tests.conftest import wait_until
from tests.worker_adapter import app as a
from tests.worker_adapter.listening import END, SubscriptionListener, history, logged
from worker_adapter import start_operation


@pytest.mark.usefixtures("application")
def test_kill_9_loses_nothing_that_was_flushed_and_doubles_nothing(redis_url, start_worker, tmp_path):
    notes = tmp_path / "notes"
    with start_worker("--pool", "prefork", "-c", "1", queue="crash", patience=0):
        listening = SubscriptionListener(redis_url, "crash")
        operation = start_operation(a.tick.si(str(notes)).set(queue="crash"), user="crash")
        wait_until(lambda: notes.exists() and notes.read_text().count("\n") >= 5, "flushes")
        os.kill(int(notes.read_text().split()[0]), signal.SIGKILL)
        events = listening.until(lambda heard: any(e.type in END for e in heard), 30)
        listening.close()

    lines = [line.split() for line in notes.read_text().splitlines() if line.count(" ") == 1]
    flushed, lives = int(lines[-1][1]), {line[0] for line in lines}
    assert len(lives) == 1
    kept = logged(redis_url, "crash")
    ticks = [e.data["n"] for e in kept if e.type == "test.tick"]
    # The second run emits the same numbers. Those that the first run flushed keep their positions, each is there once.
    assert ticks[: flushed + 1] == list(range(flushed + 1))
    assert sorted(ticks) == list(range(len(ticks)))
    assert len(ticks) >= flushed + 50
    assert [e.offset for e in events] == list(range(1, history(redis_url, "crash").position.offset + 1))
    assert len({e.id for e in events}) == len(events)
    states = [e.type for e in events if e.type.startswith("operation.") and e.type != "operation.progress"]
    assert states == ["operation.queued", "operation.started", "operation.succeeded"]
    assert sum(e.type == "task.started" for e in events) == 1
    assert operation.total == events[-1].data["done"] == 1


@pytest.mark.usefixtures("application")
def test_waiting_events_are_sent_when_a_worker_is_stopped(redis_url, start_worker):
    listening = SubscriptionListener(redis_url, "stop")
    patient = {"EVENTBUS_LINGER": "3600", "EVENTBUS_WORKER_FLUSH_BUDGET": "0"}
    with start_worker("--pool", "prefork", "-c", "1", queue="stop", **patient):
        # A single event is sent immediately. The events after it wait for the linger time.
        start_operation(a.step.si().set(queue="stop"), user="stop-before").result.get(timeout=10)
        operation = start_operation(a.step.si().set(queue="stop"), user="stop")
        operation.result.get(timeout=10)
        assert [e.type for e in logged(redis_url, "stop")] == ["operation.queued"]
    assert listening.until(lambda heard: any(e.type in END for e in heard), 5)[-1].type == "operation.succeeded"
    listening.close()
