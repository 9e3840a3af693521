"""Other pools, and a result backend without chords: the same operation in all of them."""

from collections import Counter

import pytest
from celery import chain, chord, group

from tests.worker_adapter import app as a
from tests.worker_adapter.listening import END, SubscriptionListener
from worker_adapter import start_operation

POOLS = {
    "solo": (["--pool", "solo"], {}),
    "threads": (["--pool", "threads", "-c", "4"], {}),
    "gevent": (["--pool", "gevent", "-c", "4"], {}),
    "spawn": (["--pool", "prefork", "-c", "2"], {"TESTS_START_METHOD": "spawn"}),
    "chord_unlock": (["--pool", "threads", "-c", "4"], {"TESTS_BACKEND": "file://{folder}"}),
}


def mixed(queue):
    """A bit of everything. Tasks of several operations run side by side in one process."""

    def here(signature):
        return signature.set(queue=queue)

    header = [here(a.again.si(times=1)), here(a.spread.si()), here(a.nested.si()), here(a.become.si())]
    return chain(here(a.step.si(name="first")), chord(header, here(a.collect.s())), here(a.step.si(name="last")))


ONCE = ["first", "again", "spread", "spread.0", "spread.1", "nested", "inner", "nested again"]
SEEN = Counter([*ONCE, "become", "become.0", "become.1", "become.2", "collect", "last"])


def check_events_of_tasks(redis_url, pool):
    """Stages, steps of several threads, and deferred events, at the same time."""
    listening = SubscriptionListener(redis_url, f"{pool}-events")
    tasks = [a.parts.si(), a.threads.si(), a.announce.si()]
    start_operation(group(task.set(queue=pool) for task in tasks), user=listening.user)
    events = listening.until(lambda heard: any(e.type in END for e in heard), 30)
    listening.close()
    ends = [e.data for e in events if e.type == "task.progress" and e.data["state"] == "done"]
    assert {(data["done"], data["total"], data["share"]) for data in ends} == {(10, 10, 1), (400, 400, 1)}
    announced = [e.data["what"] for e in events if e.type == "test.seen" and e.data["what"] in ("first", "second")]
    assert announced == ["first", "second"]
    assert events[-1].type == "operation.succeeded"


@pytest.mark.usefixtures("application")
@pytest.mark.parametrize("pool", POOLS)
def test_operations_side_by_side(pool, redis_url, start_worker, tmp_path):
    arguments, environment = POOLS[pool]
    environment = {name: value.format(folder=tmp_path) for name, value in environment.items()}
    with start_worker(*arguments, queue=pool, patience=0, **environment) as worker:
        listening = [SubscriptionListener(redis_url, f"{pool}-{i}") for i in range(3)]
        operations = [start_operation(mixed(pool), user=each.user) for each in listening]
        for operation, each in zip(operations, listening, strict=True):
            events = each.until(lambda heard: any(e.type in END for e in heard), 30)
            seen = [e for e in events if e.type == "test.seen"]
            assert Counter(e.data["what"] for e in seen) == SEEN
            assert {e.data["operation"] for e in seen} == {f"{each.user}/{operation.id}"}
            assert events[-1].type == "operation.succeeded"
            # Seven tasks of the canvas; two by delay, three of the replacement, one run on the spot.
            assert operation.total == 7
            assert (events[-1].data["done"], events[-1].data["total"]) == (13, 13)
            each.close()
        check_events_of_tasks(redis_url, pool)
    text = worker.log.read_text()
    assert "Signal handler" not in text
    assert "cannot report" not in text
