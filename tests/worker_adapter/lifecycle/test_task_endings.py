"""Every way in which a task ends, on every pool that has it, over both brokers: the page receives the truth, once.

All rows of a pool and broker run side by side in one worker; each test looks at its own.
"""

import datetime as dt
import itertools
import pickle
from dataclasses import dataclass, field

import celery
import pytest
from celery import chain
from kombu.serialization import register

from eventbus import BusSettings
from eventbus.backends.redis.operation_client import Operations
from tests.conftest import wait_until
from tests.worker_adapter import lives as a
from tests.worker_adapter.conftest import check_log, publishing_to
from tests.worker_adapter.listening import END, SubscriptionListener, logged
from worker_adapter import start_operation

POOLS = {
    "prefork": ["--pool", "prefork", "-c", "4"],
    "prefork without results": ["--pool", "prefork", "-c", "4"],
    "threads": ["--pool", "threads", "-c", "6"],
    "solo": ["--pool", "solo"],
    "gevent": ["--pool", "gevent", "-c", "20"],
}
PROCESSES = ("prefork", "prefork without results")
KILLABLE = (*PROCESSES, "gevent")
# Celery before 5.5 cannot terminate a greenlet.
STOPPABLE = KILLABLE if celery.VERSION >= (5, 5) else PROCESSES

# A body of a type that the worker does not accept.
register("tests", lambda _: "?", lambda _: None, content_type="application/x-tests", content_encoding="utf-8")
# A body that cannot be decoded, of a type that the worker accepts.
register("broken", lambda _: b"\x80", pickle.loads, content_type="application/x-python-serialize")


@dataclass
class Row:
    """A task and the expected events: states of the task, and the end of the operation."""

    flow: object
    states: list
    end: str
    error: str = ""
    pools: tuple = tuple(POOLS)
    revoke: dict = field(default_factory=dict)
    early: bool = False
    reason: str = ""
    total: int = 1


def done(flow, *states, **more):
    return Row(flow, ["started", *states, "succeeded"], "succeeded", **more)


def again(flow):
    return Row(flow, ["started", "retry", "started", "succeeded"], "succeeded", "ConnectionError: not yet")


def failed(flow, error, *, began=True, **more):
    return Row(flow, [*(["started"] if began else []), "failed"], "failed", error, **more)


def revoked(flow, reason, *, began=False, **more):
    return Row(flow, [*(["started"] if began else []), "revoked"], "failed", reason=reason, **more)


LOST = "WorkerLost: the process that ran this task ended"
LIMIT = "TimeLimitExceeded: it ran for more than 1 s"
PAST = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)

ROWS = {
    "success": lambda _: done(a.ok.si()),
    "success, acknowledged late": lambda _: done(a.late.si()),
    "no result is kept": lambda _: done(a.quiet.si()),
    "pickle": lambda _: done(a.ok.si({1, 2}).set(serializer="pickle")),
    "an error": lambda _: failed(a.fail.si(), "ValueError: no such page"),
    "an error, acknowledged late": lambda _: failed(a.fail_late.si(), "ValueError: no such page"),
    # With solo the worker ends of the hook's error, too.
    "an error, and its hook raises": lambda _: failed(
        a.fail_in_hook.si(), "RuntimeError: the hook is broken", pools=(*KILLABLE, "threads")
    ),
    "an error, and its hook raises once": lambda path: failed(
        a.fail_in_hook_once.si(path), "RuntimeError: the hook is broken"
    ),
    "soft time limit": lambda _: failed(a.soft.si(), "SoftTimeLimitExceeded", pools=PROCESSES),
    "hard time limit": lambda _: failed(a.hard.si(), LIMIT, pools=KILLABLE),
    "hard time limit of the message": lambda path: failed(a.wait.si(path).set(time_limit=1), LIMIT, pools=KILLABLE),
    "hard time limit, acknowledged late": lambda _: failed(a.hard_late.si(), LIMIT, pools=KILLABLE),
    "autoretry": lambda path: again(a.auto.si(path)),
    "a retry, and its hook raises": lambda _: again(a.again_in_hook.si()),
    "SIGKILL": lambda _: failed(a.kill.si(), LOST, pools=PROCESSES),
    "SIGKILL, acknowledged late": lambda _: failed(a.kill_late.si(), LOST, pools=PROCESSES),
    "SIGKILL, and again": lambda path: done(a.kill_once.si(path), pools=PROCESSES),
    # Celery before 5.7 does not look for the result of a task whose process was lost, and stores a failure.
    "SIGKILL, when it has succeeded": lambda _: (
        done(a.kill_when_done.si(), pools=("prefork",))
        if celery.VERSION >= (5, 7)
        else failed(a.kill_when_done.si(), LOST, pools=("prefork",))
    ),
    "SIGKILL, when it has succeeded, acknowledged late": lambda _: done(a.kill_when_done_late.si(), pools=("prefork",)),
    "SystemExit": lambda _: failed(a.leave.si(), "", pools=(*KILLABLE, "threads")),
    "CancelledError": lambda _: failed(a.cancel_itself.si(), "CancelledError", pools=(*KILLABLE, "threads")),
    "retry with headers": lambda _: again(a.again_with_headers.si()),
    "retry by another id": lambda _: again(a.again_by_another_id.si()),
    "retry that does not throw": lambda _: again(a.again_and_return.si()),
    "retries run out, with arguments": lambda _: failed(
        a.no_more_tries.si("s3cret"), "MaxRetriesExceededError: Can't retry tests.worker_adapter.lives.no_more_tries["
    ),
    "Retry, raised by hand": lambda _: failed(a.again_by_hand.si(), "Retry: no other try was published"),
    "what follows cannot be published": lambda _: failed(
        chain(a.ok.si(), a.ok.si().set(serializer="unregistered")), "SerializerNotInstalled", total=2
    ),
    "ignore": lambda _: Row(a.ignore.si(), ["started"], "succeeded"),
    "reject": lambda _: failed(a.reject.si(), "Reject: not for me"),
    "reject, and again": lambda path: done(a.requeue.si(path)),
    "reject, too late to be requeued": lambda _: failed(a.requeue_early.si(), "Reject: too late for that"),
    "revoked while it runs": lambda path: revoked(
        a.wait.si(path), "terminated", began=True, pools=STOPPABLE, revoke={"terminate": True}
    ),
    "revoked before it begins": lambda path: revoked(a.wait.si(path).set(countdown=2), "revoked", early=True),
    "expired": lambda _: revoked(a.ok.si().set(expires=PAST), "expired"),
    "a countdown": lambda _: done(a.ok.si().set(countdown=1)),
    "unknown": lambda _: failed(a.app.signature("unknown.task"), "NotRegistered: unknown.task", began=False),
    "not to be decoded": lambda _: failed(a.ok.si().set(serializer="broken"), "DecodeError", began=False),
    "malformed": lambda _: failed(a.ok.si().set(serializer="tests"), "ContentDisallowed", began=False),
}
CELLS = [
    (broker, pool, name)
    for broker, pool, name in itertools.product(("redis", "rabbitmq"), POOLS, ROWS)
    if pool in ROWS[name]("").pools
]


@dataclass
class Begun:
    row: Row
    user: str
    id: str
    task: str
    listening: SubscriptionListener
    offset: int = 0


@pytest.fixture(scope="module")
def cells(application, redis_url, start_worker, broker_url, tmp_path_factory):
    """Started rows of one pool and broker. The rows of the previous one are checked again when its worker has ended."""
    open_ = []

    def of(broker, pool):
        if not open_ or open_[0].name != (broker, pool):
            while open_:
                open_.pop().__exit__(None, None, None)
            worker = Worker(broker, pool, redis_url, start_worker, broker_url, tmp_path_factory.mktemp("lives"))
            worker.__enter__()
            open_.append(worker)
        return open_[0].begun

    yield of
    while open_:
        open_.pop().__exit__(None, None, None)


class Worker:
    def __init__(self, broker, pool, redis_url, start_worker, broker_url, folder):
        self.name = (broker, pool)
        self.redis_url = redis_url
        self._folder = folder
        self._publishing = publishing_to(a.app, broker_url(broker))
        self._queue = f"{pool.replace(' ', '-')}-{broker}"
        backend = {"TESTS_BACKEND": "disabled://"} if "without" in pool else {}
        self._worker = start_worker(
            *POOLS[pool], queue=self._queue, app="tests.worker_adapter.lives", broker=broker, patience=0, **backend
        )

    def __enter__(self):
        self._publishing.__enter__()
        a.app.conf.result_backend = f"{self.redis_url.removesuffix('/0')}/2"
        self.process = self._worker.__enter__()
        # A worker loses commands that arrive before it listens.
        ping = {"destination": [self.process.name], "timeout": 1, "limit": 1}
        wait_until(lambda: a.app.control.ping(**ping), "the worker to listen", 30)
        names = [name for broker, pool, name in CELLS if (broker, pool) == self.name]
        self.begun = {name: self._begin(name, i) for i, name in enumerate(names)}
        for each in self.begun.values():
            if each.row.revoke:
                each.listening.until(lambda heard: any(e.type == "task.started" for e in heard))
                a.app.control.revoke(each.task, **each.row.revoke)

    def _begin(self, name, i):
        user = f"life-{self._queue}-{i}"
        row = ROWS[name](str(self._folder / str(i)))
        listening = SubscriptionListener(self.redis_url, user)
        row.flow.set(queue=self._queue)
        operation = start_operation(row.flow, user=user, label=name)
        if row.early:
            # It has heard of it when it answers: then the countdown may be short.
            a.app.control.revoke(operation.result.id, destination=[self.process.name], reply=True, timeout=10, limit=1)
        return Begun(row, user, operation.id, operation.result.id, listening)

    def __exit__(self, *_):
        self._worker.__exit__(None, None, None)
        self._publishing.__exit__(None, None, None)
        check_log(self.process)
        for name, each in self.begun.items():
            each.listening.close()
            if each.offset:
                later = logged(self.redis_url, each.user, each.offset)
                assert not later, f"{name}: events after the end: {later}"


@pytest.mark.parametrize(("broker", "pool", "name"), CELLS)
def test_how_a_task_ends(broker, pool, name, cells, redis_url):
    begun = cells(broker, pool)[name]
    row = begun.row
    events = begun.listening.until(lambda heard: any(e.type in END for e in heard), 30)
    begun.offset = events[-1].offset
    # The next try may begin elsewhere before the former one has said that there will be one.
    tasks = sorted((e for e in events if e.type.startswith("task.")), key=lambda e: e.data["retries"])
    states = [e.type.removeprefix("task.") for e in tasks]
    assert states == row.states
    assert [e.type for e in events if e.type in END] == [f"operation.{row.end}"]
    end = events[-1].data
    bad = row.end == "failed"
    assert (end["done"], end["failed"], end["total"]) == (int(not bad), int(bad), row.total)
    described = next((e.data for e in events if e.type in ("task.failed", "task.retry")), {})
    if row.error:
        assert described["error"].startswith(row.error)
        assert "s3cret" not in described["error"]
    if row.reason:
        assert [e.data["reason"] for e in events if e.type == "task.revoked"] == [row.reason]
    assert len({e.id for e in events}) == len(events)
    with Operations(BusSettings(redis_url=redis_url)) as operations:
        assert operations.get(begun.user, begun.id).state == row.end
