"""The application under test: tasks that a worker runs and the tests start."""

import asyncio
import itertools
import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from celery import Celery, Task, chord, group
from celery.exceptions import Ignore, Reject
from celery.signals import before_task_publish

from eventbus import Event, NoOperation, Operations, aemit, default_bus, emit
from eventbus.operations.events import current_operation
from worker_adapter import atrack, emit_on_success, install, progress, stages, track, with_task_context

server = os.environ.get("TESTS_REDIS", "redis://127.0.0.1:6379")
broker = os.environ.get("TESTS_BROKER", f"{server}/1")
app = Celery("tests.worker_adapter.app", broker=broker, backend=os.environ.get("TESTS_BACKEND", f"{server}/2"))
app.conf.update(
    broker_transport_options=json.loads(os.environ.get("TESTS_BROKER_OPTIONS", "{}")),
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
    result_chord_retry_interval=0.1,
    worker_pool_start_method=os.environ.get("TESTS_START_METHOD", "fork"),
    task_default_queue=os.environ.get("TESTS_QUEUE", "celery"),
    include=["tests.worker_adapter.app"],
)
install(app)


class TaskRan(Event, name="test.seen"):
    """A task has run; ``operation`` is the current operation that it found."""

    what: str
    operation: str


class Tick(Event, name="test.tick"):
    n: int


def see(what):
    operation = current_operation.get()
    emit(TaskRan(what=what, operation="" if operation is None else "/".join(operation)))


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


@app.task(bind=True)
def again_by_itself(self):
    """Publishes another task with a number of retries, as some applications do."""
    see("again_by_itself")
    if not self.request.retries:
        self.apply_async(retries=1, countdown=1)


@app.task
def spread(*args, n=2, name="spread"):
    see(name)
    for i in range(n):
        step.delay(name=f"{name}.{i}")


@app.task(bind=True)
def hand_on(self: Task, *args, name="hand_on"):
    """Starts a task with its own headers, as some applications do."""
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


@app.task(bind=True)
def cut(self: Task, *args):
    """Drops the rest of its chain, as some applications do."""
    see("cut")
    self.request.chain = None


@app.task(bind=True)
def twice(self: Task, folder):
    """Its message comes twice: a copy is sent that runs at the same time, and ends after this run has begun to publish
    the body of its chord, and before it has.
    """
    try:
        Path(folder, "first").touch(exist_ok=False)
    except FileExistsError:
        _wait_for(Path(folder, "publishing").exists)
    else:
        self.signature_from_request(retries=0).apply_async()


@app.task
def body(results, folder):
    see("body")


@before_task_publish.connect(sender=body.name)
def _publishing(body, **_):
    operation = current_operation.get()
    Path(body[1]["folder"], "publishing").touch()
    with Operations() as operations:
        _wait_for(lambda: operations.get(*operation).done)


def _wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


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


@app.task(time_limit=1)
def too_long():
    see("too_long")
    default_bus().flush(5)
    time.sleep(30)


@app.task
def spread_too_long():
    """Starts a task that a time limit ends. The worker's main process publishes its error callback."""
    see("spread_too_long")
    too_long.apply_async(link_error=on_error_later.s())


@app.task
def die():
    see("die")
    default_bus().flush(5)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def spread_chord_that_dies():
    see("spread_chord_that_dies")
    chord([die.si()], collect.s().on_error(on_error_later.s()))()


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
    """Emits forever in its first run and notes its position after each flush. Its second run goes a bit further."""
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
    """Emits outside of every operation, unless it is part of one."""
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


@app.task
def parts(n=100, fails=False):
    with stages(read=1, embed=8, store=1) as whole:
        for _ in whole.track("read", range(n)):
            pass
        with whole.stages("embed", split=1, encode=1) as inner:
            with inner.stage("split"):
                pass
            for i in inner.track("encode", range(n)):
                if fails and i == n // 2:
                    raise ValueError("disk full")
        with whole.stage("store"):
            pass


@app.task
def threads(threads=4, n=100):
    def work(steps, i):
        see(f"thread-{i}")
        for _ in range(n):
            steps.step()

    with progress(total=threads * n) as steps, ThreadPoolExecutor(threads) as pool:
        list(pool.map(with_task_context(work), itertools.repeat(steps), range(threads)))


@app.task(bind=True, max_retries=2)
def announce(self, fails=False):
    for name in ("first", "second"):
        emit_on_success(TaskRan(what=name, operation=""))
    emit(TaskRan(what=f"try {self.request.retries}", operation=""))
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    if fails:
        raise ValueError("disk full")


@app.task
def in_a_loop(n=10):
    async def asee(name):
        await aemit(TaskRan(what=name, operation="/".join(current_operation.get())))

    async def numbers():
        for i in range(n):
            yield i

    async def main():
        await asee("awaited")
        await asyncio.gather(*(asee(f"gathered-{i}") for i in range(2)))
        await asyncio.to_thread(see, "in a thread")
        for _ in track(range(n), stage="loop"):
            await asyncio.sleep(0)
        async for _ in atrack(numbers(), stage="stream"):
            pass
        emit_on_success(TaskRan(what="announced", operation="/".join(current_operation.get())))

    asyncio.run(main())


@app.task
def send_by_name(*args, name="send_by_name"):
    """Starts a task that it does not import."""
    see(name)
    app.send_task("tests.worker_adapter.app.step", kwargs={"name": f"{name}.0"})


@app.task
def spread_traced(*args, name="spread_traced"):
    """Starts tasks as tracing libraries publish them: with a ``headers`` dict inside of the headers."""
    see(name)
    for i in range(2):
        step.apply_async(kwargs={"name": f"{name}.{i}"}, headers={"headers": {"x-trace": "1"}})
