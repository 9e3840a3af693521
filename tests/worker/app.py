"""The application under test: what a worker runs, and what the tests start."""

import itertools
import os
from pathlib import Path

from celery import Celery, Task, chord, group
from celery.exceptions import Ignore, Reject

from eventbus import Event, NoOperation, default_bus, emit
from eventbus.operation import current_operation
from worker_adapter import install, progress, track

server = os.environ.get("TESTS_REDIS", "redis://127.0.0.1:6379")
broker = os.environ.get("TESTS_BROKER", f"{server}/1")
app = Celery("tests.worker.app", broker=broker, backend=os.environ.get("TESTS_BACKEND", f"{server}/2"))
app.conf.update(
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
    result_chord_retry_interval=0.1,
    worker_pool_start_method=os.environ.get("TESTS_START_METHOD", "fork"),
    task_default_queue=os.environ.get("TESTS_QUEUE", "celery"),
    include=["tests.worker.app"],
)
install(app)


class Seen(Event, name="test.seen"):
    """A task has run; ``operation`` is what it saw of its own."""

    what: str
    operation: str


class Tick(Event, name="test.tick"):
    n: int


def see(what):
    operation = current_operation.get()
    emit(Seen(what=what, operation="" if operation is None else "/".join(operation)))


@app.task
def step(*args, name="step"):
    see(name)
    return name


@app.task
def fail(*args, name="fail", message="no such page"):
    see(name)
    raise ValueError(message)


@app.task
def collect(results, name="collect"):
    see(name)
    return name


@app.task
def double(x):
    see(f"double-{x}")
    return x * 2


@app.task(bind=True, max_retries=3)
def again(self, *args, times=2, name="again"):
    if self.request.retries < times:
        raise self.retry(countdown=0, exc=ConnectionError("not yet\nsecret second line"))
    see(name)


@app.task
def spread(*args, n=2, name="spread"):
    see(name)
    for i in range(n):
        step.delay(name=f"{name}.{i}")


@app.task(bind=True)
def hand_on(self: Task, *args, name="hand_on"):
    """Starts a task with the headers of its own, as people do who know no other way."""
    see(name)
    step.apply_async(kwargs={"name": f"{name}.0"}, headers=dict(self.request.headers or {}))


@app.task(bind=True)
def become(self: Task, *args, shape="chain", name="become"):
    see(name)
    parts = [step.s(name=f"{name}.{i}") for i in range(3)]
    flows = {
        "chain": lambda: parts[0] | parts[1] | parts[2],
        "group": lambda: group(parts),
        "chord in chain": lambda: parts[0] | chord([parts[1]], collect.s(name=f"{name}.body") | parts[2]),
        "itself": lambda: become.s(shape="chain", name=f"{name}.again"),
    }
    return self.replace(flows[shape]())


@app.task
def give_up():
    see("give_up")
    raise Ignore


@app.task
def refuse():
    see("refuse")
    raise Reject("not for me", requeue=False)


@app.task
def on_error(*args, name="on_error"):
    see(name)


@app.task(bind=True)
def on_error_later(self, task_id):
    """One argument: Celery publishes it, where it would call one with several on the spot."""
    see("on_error_later")


@app.task
def bar(n=500, fails=False):
    with progress(total=n, stage="read") as steps:
        for _ in range(n):
            steps.step()
    for i in track(range(n), stage="write"):
        if fails and i == n // 2:
            raise ValueError("disk full")


@app.task(acks_late=True, reject_on_worker_lost=True)
def tick(path):
    """Emits for ever in its first life, noting after each flush how far it has come; a bit further in its second."""
    operation, notes = current_operation.get(), Path(path)
    second = notes.exists()
    numbers = range(int(notes.read_text().split()[-1]) + 50) if second else itertools.count()
    for i in numbers:
        emit(Tick(n=i), id=f"{operation.op}.{i}")
        if not second and i % 10 == 9 and default_bus().flush(5):
            with notes.open("a") as file:
                file.write(f"{os.getpid()} {i}\n")


@app.task
def outside():
    """Emits with nobody to emit to, unless it is part of an operation."""
    try:
        see("outside")
    except NoOperation:
        return "NoOperation"
    return "emitted"


@app.task
def nested():
    """Runs another task on the spot, and is itself again afterwards."""
    see("nested")
    step.apply(kwargs={"name": "inner"})
    see("nested again")
