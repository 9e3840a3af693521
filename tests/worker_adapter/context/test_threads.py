"""``with_task_context``, and one progress that several threads step."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import pytest

from eventbus import NoOperation, emit
from tests.worker_adapter import app as a
from tests.worker_adapter.conftest import ROOT
from tests.worker_adapter.listening import END, SubscriptionListener
from worker_adapter import progress, stages, start_operation, with_task_context


@pytest.fixture
def impatient():
    """Threads take turns after some byte codes, not after milliseconds."""
    former = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(former)


@pytest.mark.usefixtures("application", "worker")
def test_in_a_worker(redis_url):
    listening = SubscriptionListener(redis_url, "threads")
    operation = start_operation(a.threads.si(threads=4, n=5_000), user=listening.user)
    events = listening.until(lambda heard: any(e.type in END for e in heard))
    listening.close()
    seen = sorted((e.data["what"], e.data["operation"]) for e in events if e.type == "test.seen")
    assert seen == [(f"thread-{i}", f"threads/{operation.id}") for i in range(4)]
    said = [e.data for e in events if e.type == "task.progress"]
    counts = [data["done"] for data in said]
    assert counts == sorted(counts)
    assert (said[-1]["state"], said[-1]["done"], said[-1]["share"]) == ("done", 20_000, 1)


@pytest.mark.usefixtures("impatient")
def test_no_step_of_any_thread_is_lost(states, monkeypatch):
    monkeypatch.setenv("EVENTBUS_WORKER_PROGRESS_INTERVAL", "1e-9")

    def work(steps):
        for _ in range(2_000):
            steps.step()

    with progress(10_000, stage="one") as one, stages(all=1, stage="whole") as whole, whole.stage("all") as part:
        others = [
            threading.Thread(target=with_task_context(work), args=(steps,)) for steps in (one, part) for _ in range(4)
        ]
        for thread in others:
            thread.start()
        work(one)
        work(part)
        for thread in others:
            thread.join()
        assert (one.done, part.done) == (10_000, 10_000)
    assert states()["one"]["done"] == 10_000


@pytest.mark.usefixtures("impatient")
def test_not_even_where_adding_takes_python_its_time():
    """Of plain numbers CPython loses none by chance; of these it does without a lock."""

    def work(steps):
        for _ in range(2_000):
            steps.step(Fraction(1))

    with progress() as steps, ThreadPoolExecutor(3) as pool:
        others = [pool.submit(work, steps) for _ in range(3)]
        work(steps)
        for other in others:
            other.result()
        assert steps.done == 8_000


def test_a_thread_that_outlives_the_block_reports_nothing(states):
    with progress(2, stage="a") as steps:
        steps.step()
    steps.step()
    late = threading.Thread(target=with_task_context(steps.set), args=(1,))
    late.start()
    late.join()
    assert (states()["a"]["done"], states()["a"]["state"]) == (1, "done")


def test_set_from_any_thread():
    with progress(10) as steps:
        steps.step(3)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(steps.set, 7).result()
            assert steps.done == 7
            pool.submit(steps.step, 2).result()
            assert steps.done == 9
        steps.set(1)
        assert steps.done == 1


@pytest.mark.usefixtures("states")
def test_many_calls_at_the_same_time_each_in_a_separate_context():
    both = threading.Barrier(4, timeout=10)

    def note(n):
        both.wait()
        emit(a.Tick(n=n))
        return n

    with ThreadPoolExecutor(4) as pool:
        with pytest.raises(NoOperation):
            pool.submit(emit, a.Tick(n=0)).result()
        assert list(pool.map(with_task_context(note), range(4))) == [0, 1, 2, 3]
    assert with_task_context(note).__name__ == "note"


def test_nothing_is_imported_in_a_thread(redis_url):
    """A pool that forks meanwhile would hand half a module down, and the child could never send anything."""
    environment = {**os.environ, "EVENTBUS_REDIS_URL": redis_url, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.worker_adapter.imports"]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=30)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == []
