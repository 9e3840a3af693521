"""Every shape of a canvas, prefork workers, both brokers: user and operation arrive, numbers are right, one end."""

import itertools
from collections import Counter
from dataclasses import dataclass, field

import pytest
from celery import chain, chord, group

from eventbus.protocol.cursor import parse_cursor
from tests.worker_adapter import app as a
from tests.worker_adapter.conftest import publishing_to
from tests.worker_adapter.listening import END, SubscriptionListener, logged
from worker_adapter import start_operation

step, fail, collect = a.step, a.fail, a.collect
serial = itertools.count()


def s(name):
    return step.si(name=name)


@dataclass
class Shape:
    flow: object
    seen: list
    planned: int
    total: int | None = None
    end: str = "operation.succeeded"
    failed: int = 0
    done: int | None = None
    types: dict = field(default_factory=dict)


def linked():
    first = s("a")
    first.link(s("b"))
    return first


def with_errback(errback):
    first = fail.si()
    first.link_error(errback)
    return first


def traced(signature):
    return signature.set(headers={"headers": {"x-trace": "1"}})


SHAPES = {
    "single": lambda: Shape(s("a"), ["a"], 1),
    "chain": lambda: Shape(chain(s("a"), s("b"), s("c")), ["a", "b", "c"], 3),
    "group": lambda: Shape(group(s("a"), s("b"), s("c")), ["a", "b", "c"], 3),
    "group from a generator": lambda: Shape(group(s(x) for x in "abc"), ["a", "b", "c"], 3),
    "group of one": lambda: Shape(group([s("a")]), ["a"], 1),
    "nested group": lambda: Shape(group(s("a"), group(s("b"), s("c"))), ["a", "b", "c"], 3),
    "chord": lambda: Shape(chord([s("a"), s("b")], collect.s()), ["a", "b", "collect"], 3),
    "chord from a generator": lambda: Shape(chord((s(x) for x in "ab"), collect.s()), ["a", "b", "collect"], 3),
    "chord without a header": lambda: Shape(chord([], collect.s()), ["collect"], 1),
    "group, group, body": lambda: Shape(
        chain(group(s("a"), s("b")), group(s("c"), s("d")), collect.s()), ["a", "b", "c", "d", "collect"], 5
    ),
    "chord in a chain": lambda: Shape(
        chain(s("a"), chord([s("b"), chain(s("c"), s("d"))], collect.s()), s("e")),
        ["a", "b", "c", "d", "collect", "e"],
        6,
    ),
    "chord in a chord": lambda: Shape(
        chord([chord([s("a"), s("b")], collect.s(name="inner")), s("c")], collect.s()),
        ["a", "b", "c", "inner", "collect"],
        5,
    ),
    "chord with a chain as its body": lambda: Shape(
        chord([s("a"), s("b")], chain(collect.s(), s("c"), group(s("d"), s("e")))),
        ["a", "b", "collect", "c", "d", "e"],
        6,
    ),
    "headers of a container": lambda: Shape(
        chain(group(s("a"), s("b")).set(headers={"mine": 1}), collect.s()).set(headers={"mine": 2}),
        ["a", "b", "collect"],
        3,
    ),
    "link": lambda: Shape(linked(), ["a", "b"], 2),
    "link of a chain": lambda: Shape(chain(s("a"), s("b")).set(link=[s("c")]), ["a", "b", "c"], 3),
    "map": lambda: Shape(a.double.map([1, 2, 3]), ["double-1", "double-2", "double-3"], 1),
    "chunks": lambda: Shape(a.double.chunks([(1,), (2,), (3,)], 2), ["double-1", "double-2", "double-3"], 2),
    "chunks in a group": lambda: Shape(
        group(s("a"), a.double.chunks([(1,), (2,), (3,)], 2)), ["a", "double-1", "double-2", "double-3"], 2, 4
    ),
    "retry": lambda: Shape(chain(a.again.si(), s("b")), ["again", "b"], 2, types={"task.retry": 2}),
    "a retry by hand": lambda: Shape(a.again_by_itself.si(), ["again_by_itself"] * 2, 1, 2),
    "delay in a task": lambda: Shape(chain(a.spread.si(), s("b")), ["spread", "spread.0", "spread.1", "b"], 2, 4),
    "delay in a chord's header": lambda: Shape(
        chord([a.spread.si(), s("a")], collect.s()), ["spread", "spread.0", "spread.1", "a", "collect"], 3, 5
    ),
    "headers handed on": lambda: Shape(chain(a.hand_on.si(), s("b")), ["hand_on", "hand_on.0", "b"], 2, 3),
    "a task sent by name": lambda: Shape(
        chain(a.send_by_name.si(), s("b")), ["send_by_name", "send_by_name.0", "b"], 2, 3
    ),
    "replace by a chain": lambda: Shape(
        chain(a.become.si(), s("b")), ["become", "become.0", "become.1", "become.2", "b"], 2, 5
    ),
    "replace by a group": lambda: Shape(
        chain(a.become.si(shape="group"), s("b")), ["become", "become.0", "become.1", "become.2", "b"], 2, 5
    ),
    "replace by a chord in a chain": lambda: Shape(
        a.become.si(shape="chord in chain"), ["become", "become.0", "become.1", "become.body", "become.2"], 1, 5
    ),
    "replace twice": lambda: Shape(
        chord([a.become.si(shape="itself"), s("a")], collect.s()),
        ["become", "become.again", "become.again.0", "become.again.1", "become.again.2", "a", "collect"],
        3,
        7,
    ),
    # Sentry's and Datadog's integrations do this to every message. Celery then has the inner dict as request.headers.
    "an inner headers dict": lambda: Shape(
        chain(traced(a.spread_traced.si()), traced(s("b"))),
        ["spread_traced", "spread_traced.0", "spread_traced.1", "b"],
        2,
        4,
    ),
    "an inner headers dict, and a retry": lambda: Shape(
        chain(traced(a.again.si()), s("b")), ["again", "b"], 2, types={"task.retry": 2}
    ),
    "an inner headers dict, and a failure": lambda: Shape(
        traced(fail.si()), ["fail"], 1, None, END[1], 1, types={"task.failed": 1}
    ),
    "an inner headers dict in a chord": lambda: Shape(
        chord([traced(s("a")), traced(s("b"))], traced(collect.s())), ["a", "b", "collect"], 3
    ),
    "ignore": lambda: Shape(a.give_up.si(), ["give_up"], 1),
    "ignore in a chord": lambda: Shape(chord([s("a"), a.give_up.si()], collect.s()), ["a", "give_up"], 3, 2),
    "a chain that a task cuts off": lambda: Shape(
        chain(group(s("a"), s("b")), collect.s(), a.cut.s(), s("c")), ["a", "b", "collect", "cut"], 5, 4
    ),
    "a task of a group fails": lambda: Shape(
        group(s("a"), fail.si(), s("b")), ["a", "fail", "b"], 3, None, END[1], 1, types={"task.failed": 1}
    ),
    "a step of a chain fails": lambda: Shape(
        chain(s("a"), fail.si(), s("b")), ["a", "fail"], 3, None, END[1], 1, 1, types={"task.failed": 1}
    ),
    "a chord's header fails": lambda: Shape(
        chord([s("a"), fail.si()], collect.s()), ["a", "fail"], 3, None, END[1], 1, 1, types={"task.failed": 1}
    ),
    "retries run out": lambda: Shape(
        a.again.si(times=9), [], 1, None, END[1], 1, 0, types={"task.retry": 3, "task.failed": 1}
    ),
    "reject": lambda: Shape(a.refuse.si(), ["refuse"], 1, None, END[1], 1, 0, types={"task.failed": 1}),
    "an error callback, called": lambda: Shape(
        with_errback(a.on_error.si()), ["fail", "on_error"], 1, None, END[1], 1, types={"task.failed": 1}
    ),
    "an error callback, published": lambda: Shape(
        with_errback(a.on_error_later.s()), ["fail", "on_error_later"], 1, 2, END[1], 1, types={"task.failed": 1}
    ),
    "an error callback of a chord that a task starts and that dies": lambda: Shape(
        a.spread_chord_that_dies.si(),
        ["spread_chord_that_dies", "die", "on_error_later"],
        1,
        3,
        END[1],
        1,
        types={"task.failed": 1},
    ),
}


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def broker(request, application, broker_url):
    request.getfixturevalue("worker" if request.param == "redis" else "rabbit_worker")
    with publishing_to(application.app, broker_url(request.param)):
        yield request.param


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize("name", SHAPES)
def test_a_canvas_is_one_operation(name, redis_url):
    shape = SHAPES[name]()
    total = shape.planned if shape.total is None else shape.total
    user = f"shape-{next(serial)}"
    listening = SubscriptionListener(redis_url, user)

    operation = start_operation(shape.flow, user=user, label=name)

    events = listening.until(lambda heard: any(e.type in END for e in heard))
    listening.close()
    assert operation.total == shape.planned
    assert Counter(e.data["what"] for e in events if e.type == "test.seen") == Counter(shape.seen)
    assert {e.data["operation"] for e in events if e.type == "test.seen"} <= {f"{user}/{operation.id}"}
    assert {e.topic for e in events} == {f"user:{user}:operation:{operation.id}"}
    check_states(events, shape, total)
    check_progress(events, shape, total)
    check_log(redis_url, operation, events, name)


def check_states(events, shape, total):
    """Queued, started, one end, and nothing after the end."""
    states = [e for e in events if e.type.startswith("operation.") and e.type != "operation.progress"]
    assert [e.type for e in states] == ["operation.queued", "operation.started", shape.end]
    assert states[0].data["total"] == shape.planned
    end = states[-1].data
    done = total - shape.failed if shape.done is None else shape.done
    assert (end["done"], end["failed"], end["total"]) == (done, shape.failed, total)
    assert events[-1] is states[-1]
    counted = Counter(e.type for e in events)
    for type_, times in {"task.retry": 0, "task.failed": 0, **shape.types}.items():
        assert counted[type_] == times, type_


def check_progress(events, shape, total):
    states = [e.data for e in events if e.type == "operation.progress"]
    counts = [state["done"] + state["failed"] for state in states]
    assert counts == sorted(counts)
    if shape.end == "operation.succeeded":
        assert (states[-1]["done"], states[-1]["total"]) == (total, total)
    whole = [state["state"] for state in states if state["done"] == state["total"]]
    assert whole == (["succeeded"] if shape.end == "operation.succeeded" else [])


def check_log(url, operation, events, name):
    """A page that reads from the cursor receives all events of the operation that are kept."""
    (position,) = parse_cursor(operation.cursor).values()
    kept = logged(url, operation.user, position.offset)
    live = ("operation.progress", "task.started", "task.succeeded", "task.progress")
    assert [e.id for e in kept] == [e.id for e in events if e.type not in live]
    assert kept[0].type == "operation.queued"
    assert len({e.id for e in kept}) == len(kept)
    assert {e.data["label"] for e in kept if e.type.startswith("operation.")} == {name}


@pytest.mark.usefixtures("broker")
def test_an_error_callback_of_what_a_time_limit_ends_belongs_to_the_operation(redis_url):
    """Once or twice: Celery publishes it when the time is up, and again when the process is gone."""
    user = f"shape-{next(serial)}"
    listening = SubscriptionListener(redis_url, user)
    start_operation(a.spread_too_long.si(), user=user)
    events = listening.until(lambda heard: any(e.type in END for e in heard))
    listening.close()
    assert {e.data["what"] for e in events if e.type == "test.seen"} == {
        "spread_too_long",
        "too_long",
        "on_error_later",
    }
    assert events[-1].type == "operation.failed"
    assert events[-1].data["failed"] == 1


@pytest.mark.usefixtures("broker")
def test_a_chords_body_belongs_to_it_though_a_copy_of_its_header_has_ended(redis_url, tmp_path):
    """The body is published by one of two runs of the same message, which ends after the other one."""
    user = f"shape-{next(serial)}"
    listening = SubscriptionListener(redis_url, user)
    start_operation(chord([a.twice.si(str(tmp_path))], a.body.s(folder=str(tmp_path))), user=user)
    events = listening.until(lambda heard: any(e.type in END for e in heard))
    listening.close()
    assert [e.data["what"] for e in events if e.type == "test.seen"] == ["body"]
    end = events[-1]
    assert (end.type, end.data["done"], end.data["total"]) == ("operation.succeeded", 2, 2)
