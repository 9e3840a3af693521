"""The plan of a canvas, in details that a worker does not show."""

import json

import celery
import pytest
from celery import chain, chord, group
from celery.canvas import Signature, xmap

from tests.worker_adapter import app as a
from worker_adapter.context.canvas import plan
from worker_adapter.context.headers import read_operation, task_key_of

OURS = {"eventbus_user": "ann", "eventbus_operation": "op"}


def headers_of(node):
    """Headers of every task below, as a message would carry them."""
    for link in node["options"].get("link", []):
        yield from headers_of(link)
    match node["subtask_type"]:
        case "chain" | "group":
            for task in node["kwargs"]["tasks"]:
                yield from headers_of(task)
        case "chord":
            header = node["kwargs"]["header"]
            for task in header["kwargs"]["tasks"] if isinstance(header, dict) else header:
                yield from headers_of(task)
            yield from headers_of(node["kwargs"]["body"])
        case _:
            yield node["options"]["headers"]


def test_each_task_has_a_separate_key_that_survives_json():
    first = a.step.s().set(headers={"mine": 1})
    first.link(chain(a.step.s(), a.step.s()))
    flow = chain(first, group(a.step.s(), chord([a.step.s(), a.step.s()], a.collect.s())), a.collect.s())
    planned = plan(flow, OURS)
    headers = list(headers_of(json.loads(json.dumps(planned.flow))))
    assert planned.tasks == len(headers) == 8
    assert len({task_key_of("step", "id", each).value for each in headers}) == 8
    assert all(task_key_of("step", "id", each).planned for each in headers)
    assert all(OURS.items() <= each.items() for each in headers)
    assert sum("mine" in each for each in headers) == 1


def test_headers_of_a_container_reach_the_tasks_that_it_publishes():
    flow = chain(a.step.s(), a.step.s()) | group(a.step.s(), a.step.s()).set(headers={"of": "group"})
    flow = chain(*flow.tasks).set(headers={"of": "chain"})
    planned = plan(flow, OURS).flow
    assert "headers" not in planned.options
    assert [each.get("of") for each in headers_of(json.loads(json.dumps(planned)))] == ["chain", None, "group", "group"]


def test_map_is_still_routed_by_its_task():
    flow = plan(a.double.map([1, 2]), OURS).flow
    # Celery before 5.7 publishes a plain signature, which names the task's route.
    before = celery.VERSION < (5, 7)
    assert (isinstance(flow, xmap), flow.options.get("route_name")) == (not before, a.double.name if before else None)


def test_a_canvas_may_be_the_dict_that_it_was_sent_as():
    flow = chain(a.step.s(), a.step.s())
    flow.tasks[1] = json.loads(json.dumps(group(a.step.s(), a.step.s())))
    assert plan(flow, OURS).tasks == 3
    assert isinstance(flow.tasks[1], dict)
    assert not isinstance(flow.tasks[1], Signature)


@pytest.mark.parametrize(
    ("name", "internal"),
    [("celery.chord_unlock", True), ("celery.accumulate", True), ("celery.starmap", False), ("app.celery.task", False)],
)
def test_the_tasks_of_celery_are_internal(name, internal):
    assert task_key_of(name, "id", {}).internal is internal


@pytest.mark.parametrize(
    ("user", "op"), [("a b", "1"), ("", "1"), ("ann", "a/b"), ("x" * 129, "1"), (7, "1"), ("ann", [])]
)
def test_a_message_of_an_operation_that_cannot_be_belongs_to_none(user, op):
    assert read_operation({"eventbus_user": user, "eventbus_operation": op}) is None


def test_a_label_of_another_program_can_be_encoded():
    headers = {"eventbus_user": "ann", "eventbus_operation": "1", "eventbus_label": "a\udcff" + "b" * 5_000}
    operation, label = read_operation(headers)
    assert operation == ("ann", "1")
    assert label.startswith("a?b")
    assert len(label) == 1_000
    assert task_key_of("step", "id", {"eventbus_leaf": "k\udcff"}).value == "k?"
