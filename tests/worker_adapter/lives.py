"""Tasks that end in every possible way."""

import asyncio
import os
import signal
import time
from pathlib import Path

from celery import Celery
from celery.exceptions import Ignore, Reject, Retry
from celery.signals import task_postrun

from eventbus import default_bus
from worker_adapter import check_cancelled, install, progress, track

server = os.environ.get("TESTS_REDIS", "redis://127.0.0.1:6379")
app = Celery(
    "tests.worker_adapter.lives",
    broker=os.environ.get("TESTS_BROKER", f"{server}/1"),
    backend=os.environ.get("TESTS_BACKEND", f"{server}/2"),
)
app.conf.update(
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=4,
    accept_content=["json", "pickle"],
    task_default_queue=os.environ.get("TESTS_QUEUE", "celery"),
    worker_lost_wait=0.5,
    worker_soft_shutdown_timeout=float(os.environ.get("TESTS_SOFT_SHUTDOWN", "0")),
    worker_cancel_long_running_tasks_on_connection_loss=True,
    include=["tests.worker_adapter.lives"],
)
install(app)


@app.task
def ok(*args):
    return "ok"


@app.task
def touch(path):
    Path(path).touch()


@app.task(ignore_result=True)
def quiet():
    return "no reader"


@app.task(acks_late=True)
def late():
    return "ok"


@app.task
def fail():
    raise ValueError("no such page")


class BadHook(app.Task):
    def on_failure(self, *args):
        raise RuntimeError("the hook is broken")


@app.task(base=BadHook)
def fail_in_hook():
    raise ValueError("no such page")


class BadHookOnce(app.Task):
    def on_failure(self, error, task_id, args, *more):
        if not _second_time(args[0]):
            raise RuntimeError("the hook is broken")


@app.task(base=BadHookOnce)
def fail_in_hook_once(path):
    """Celery calls the hook once more when the task is over, and is then content."""
    raise ValueError("no such page")


class BadRetryHook(app.Task):
    def on_retry(self, *args):
        raise RuntimeError("the hook is broken")


@app.task(base=BadRetryHook, bind=True)
def again_in_hook(self):
    if not self.request.retries:
        raise self.retry(countdown=1, exc=ConnectionError("not yet"))


@app.task(acks_late=True)
def fail_late():
    raise ValueError("no such page")


@app.task(soft_time_limit=1)
def soft():
    time.sleep(30)


@app.task(time_limit=1)
def hard():
    time.sleep(30)


@app.task(time_limit=1, acks_late=True)
def hard_late():
    time.sleep(30)


@app.task(autoretry_for=(ConnectionError,), retry_backoff=False, default_retry_delay=0, max_retries=3)
def auto(path):
    if not _second_time(path):
        raise ConnectionError("not yet")


def _die():
    default_bus().flush(5)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(autoretry_for=(ConnectionError,), retry_backoff=False, default_retry_delay=2, max_retries=3)
def auto_later(path):
    if not _second_time(path):
        raise ConnectionError("not yet")


@app.task
def kill():
    _die()


@app.task(acks_late=True, reject_on_worker_lost=True)
def kill_once(path):
    if not _second_time(path):
        _die()


@app.task(acks_late=True)
def kill_late():
    _die()


class DiesWhenDone(app.Task):
    def on_success(self, *args):
        _die()


@app.task(base=DiesWhenDone)
def kill_when_done():
    """Killed after its result is stored and before its process reports it."""


@app.task(base=DiesWhenDone, acks_late=True, reject_on_worker_lost=True)
def kill_when_done_late():
    """The same; its message does not come again, since it has succeeded."""


@app.task
def kill_after_report():
    """Killed after it has reported its end and before the worker's main process knows."""


@task_postrun.connect(sender=kill_after_report)
def _kill_after_report(**_):
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def after_all(results, path):
    wait.run(path)


@app.task
def publish_and_die(path):
    """Killed as soon as the broker has the message, whose turn comes after that has been noticed."""
    mark.apply_async((path,), countdown=2)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def leave():
    raise SystemExit(3)


@app.task
def cancel_itself():
    """The exception of an asyncio.run() whose task was cancelled; not an Exception."""
    raise asyncio.CancelledError


@app.task(bind=True, max_retries=3)
def again_with_headers(self):
    if not self.request.retries:
        raise self.retry(countdown=0, exc=ConnectionError("not yet"), headers={"mine": 1})


@app.task(bind=True, max_retries=3)
def again_by_another_id(self):
    if not self.request.retries:
        raise self.retry(countdown=0, exc=ConnectionError("not yet"), task_id=f"{self.request.id}-2")


@app.task(bind=True, max_retries=3)
def again_and_return(self):
    if not self.request.retries:
        self.retry(countdown=1, exc=ConnectionError("not yet"), throw=False)
    return "ok"


@app.task(bind=True, max_retries=0)
def no_more_tries(self, password):
    raise self.retry(countdown=0)


@app.task
def again_by_hand():
    raise Retry("no other try was published")


@app.task
def ignore():
    raise Ignore


@app.task(acks_late=True)
def reject():
    raise Reject("not for me", requeue=False)


@app.task(acks_late=True)
def requeue(path):
    if not _second_time(path):
        raise Reject("not now", requeue=True)


@app.task
def requeue_early():
    raise Reject("too late for that", requeue=True)


@app.task
def wait(path, seconds=60.0):
    """Runs until its file is gone; says that it has begun by making it."""
    Path(path).write_text(str(os.getpid()))
    deadline = time.monotonic() + seconds
    while Path(path).exists() and time.monotonic() < deadline:
        time.sleep(0.02)


@app.task(acks_late=True)
def wait_late(path):
    wait.run(path)


@app.task
def steps(path):
    """Steps forever, and cleans up."""
    Path(path).write_text("begun")
    try:
        for _ in track(iter(int, 1)):
            time.sleep(0.01)
    finally:
        Path(path).write_text("cleaned up")


@app.task
def walk(path):
    """Stays at 12 of 40 until its file is gone."""
    Path(path).write_text("begun")
    with progress(total=40, stage="reading") as steps:
        while Path(path).exists():
            steps.set(12)
            time.sleep(0.01)
        steps.set(40)
    return "walked"


@app.task(autoretry_for=(Exception,))
def checks(path):
    Path(path).write_text("begun")
    while True:
        time.sleep(0.01)
        check_cancelled()


@app.task
def stubborn(path):
    """Ignores everything, even signals."""
    Path(path).write_text(str(os.getpid()))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            time.sleep(0.1)
        except BaseException:  # noqa: BLE001
            continue


@app.task
def publish_when(path, ran):
    """Publishes a task when its file is gone."""
    wait.run(path)
    mark.delay(ran)


@app.task
def mark(path):
    Path(path).write_text("ran")


def _second_time(path):
    path = Path(path)
    if path.exists():
        return True
    path.touch()
    return False
