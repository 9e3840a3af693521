"""Headers of messages. Another program, or another library, may have written any of them."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventbus.operations.events import STAMP, OperationRef
from worker_adapter.context.headers import (
    ALREADY_EXPIRED,
    LABEL,
    MAX_LABEL,
    OPERATION,
    TASK_KEY,
    USER,
    WORKER_INFO,
    TaskKey,
    WorkerInfo,
    delay_of,
    encodable,
    operation_headers,
    planned_key,
    read_operation,
    read_worker_info,
    stamp,
    task_key_of,
)

REF = OperationRef("ann", "7")
anything: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(), st.binary(), st.lists(st.text(), max_size=2)
)


@pytest.mark.parametrize("label", ["", "a label"])
def test_what_a_message_names_is_read_again(label: str) -> None:
    headers = operation_headers(REF, label)
    assert read_operation({**headers, "id": "x"}) == (REF, label)
    assert (LABEL in headers) == bool(label)


@given(anything, anything, anything)
def test_headers_of_another_program_name_no_operation_or_a_valid_one(user: Any, op: Any, label: Any) -> None:
    found = read_operation({USER: user, OPERATION: op, LABEL: label})
    if not isinstance(user, str) or not isinstance(op, str):
        assert found is None
    elif found is not None:
        assert found[0] == OperationRef(user, op)
        assert found[0].topic
        assert found[1].encode()


@pytest.mark.parametrize("headers", [None, {}, {USER: "ann"}, {OPERATION: "7"}, {USER: "a:b", OPERATION: "7"}])
def test_a_message_that_names_no_operation(headers: dict[str, str] | None) -> None:
    assert read_operation(headers) is None


def test_a_label_is_cut_and_can_be_encoded() -> None:
    named = {USER: "ann", OPERATION: "7"}
    assert read_operation({**named, LABEL: "x" * 2000}) == (REF, "x" * MAX_LABEL)
    assert read_operation({**named, LABEL: "a\ud800ü"}) == (REF, "a?ü")
    assert read_operation({**named, LABEL: 7}) == (REF, "")
    assert encodable("plain") == "plain"


def test_the_facts_of_the_main_process_have_defaults() -> None:
    assert read_worker_info({WORKER_INFO: (60_000, True)}) == WorkerInfo(60_000, True)
    for headers in (None, {}, {WORKER_INFO: "rubbish"}):
        assert read_worker_info(headers) == WorkerInfo(lease=0, events=False)


def test_the_stamp_is_added_to_those_of_others_and_once() -> None:
    theirs: dict[str, Any] = {"stamped_headers": ("shop",), "stamps": {"shop": "7"}}
    headers = dict(theirs)
    stamp(headers, REF)
    stamp(headers, REF)
    assert headers == {"stamped_headers": ["shop", STAMP], "stamps": {"shop": "7", STAMP: REF.stamp}}
    assert theirs == {"stamped_headers": ("shop",), "stamps": {"shop": "7"}}
    empty: dict[str, Any] = {"stamped_headers": None, "stamps": None}
    stamp(empty, REF)
    assert empty == {"stamped_headers": [STAMP], "stamps": {STAMP: REF.stamp}}


@pytest.mark.parametrize(
    ("name", "headers", "key"),
    [
        ("t", {TASK_KEY: planned_key(3)}, TaskKey("plan-3", planned=True, internal=False)),
        ("t", {TASK_KEY: "new"}, TaskKey("new", planned=False, internal=False)),
        ("t", {TASK_KEY: "a\ud800"}, TaskKey("a?", planned=False, internal=False)),
        ("t", {TASK_KEY: 3}, TaskKey("task-x1", planned=False, internal=False)),
        ("t", {}, TaskKey("task-x1", planned=False, internal=False)),
        ("t", None, TaskKey("task-x1", planned=False, internal=False)),
        ("celery.chord_unlock", None, TaskKey("task-x1", planned=False, internal=True)),
        ("celery.map", None, TaskKey("task-x1", planned=False, internal=False)),
    ],
)
def test_the_key_of_a_task(name: str, headers: dict[str, Any] | None, key: TaskKey) -> None:
    assert task_key_of(name, "x1", headers) == key


def test_the_delay_until_a_message_is_due() -> None:
    soon = datetime.fromtimestamp(time.time() + 1000, UTC)
    for eta in (soon, soon.isoformat(), soon.replace(tzinfo=None), soon.astimezone().isoformat()):
        assert 900_000 < delay_of({"eta": eta}) <= 1_000_000, eta
    for eta in (None, "", "rubbish", 7, soon - timedelta(hours=1), ALREADY_EXPIRED):
        assert delay_of({"eta": eta}) == 0, eta
    assert delay_of({}) == 0
