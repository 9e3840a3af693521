"""A property test feeds Lua and the state machine with the same transitions."""

from __future__ import annotations

import uuid

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventbus.operations.state import ENDED, TaskTransition
from eventbus.operations.state_machine import OperationStateMachine
from tests.eventbus.backends.operation import Redis, data

tasks = st.sampled_from(["a", "b", "c", "h"])
kinds = ["plan", "published", "published", "started", "started", "released", "done", "joined", "joined", "ignored"]
transitions = st.builds(
    lambda kind, task, planned, acks_late: (
        TaskTransition(
            kind,
            task,
            1 if task in "ab" else 0,
            internal=task == "h",
            lease=60_000 if kind in ("started", "joined") else 0,
            acks_late=acks_late,
            task_json=f'"task":"{task}","name":"n","retries":0' if kind == "started" else "",
        )
        if kind != "plan"
        else TaskTransition("plan", planned=planned)
    ),
    st.sampled_from([*kinds, "failed", "revoked"]),
    tasks,
    st.integers(0, 3),
    st.booleans(),
)
steps = st.one_of(
    st.lists(transitions, min_size=1, max_size=4),
    st.just("cancel"),
    st.one_of(tasks, st.just("")).map(lambda task: ("expire", task)),
)


@given(st.lists(steps, min_size=1, max_size=10))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_lua_and_python_count_alike(bus_settings, batches):
    real = Redis(bus_settings.model_copy(update={"key_prefix": f"t{uuid.uuid4().hex[:10]}"}))
    machine, ended, changes_seen = OperationStateMachine(), False, []
    for step in batches:
        if step == "cancel":
            counts = real.cancel()
            changes_seen += [] if counts is None else machine.cancel(5)
        elif isinstance(step, tuple):
            real.age(step[1])
            counts = real.expire_leases().counts
            if step[1] in machine.leases:
                machine.leases[step[1]] = 1
            changes_seen += [] if counts is None else machine.expire_leases(5, 60_000)
        else:
            counts = real.record(*step)
            changes_seen += machine.apply(step, 5)
        assert counts in (None, machine.counts())
        if counts is not None:
            assert counts.done + counts.failed <= counts.total
            assert not ended or counts.state in ENDED
            ended = counts.state in ENDED
            assert counts.state != "succeeded" or counts.done == counts.total
        assert machine.running == sum(state in "rR" for state in machine.tasks.values())
        assert machine.lost == sum(state == "l" for state in machine.tasks.values())
    expected = [(f"operation.{change}", data(c.state, c.done, c.failed, c.total)) for change, c in changes_seen]
    progress = [fact for fact in expected if fact[0] == "operation.progress"][-1:]
    lasting = [fact for fact in expected if fact[0] != "operation.progress"]
    found = [fact for fact in await real.events() if fact[0] != "task.failed"]
    assert [fact for fact in found if fact[0] != "operation.progress"] == lasting
    assert [fact for fact in found if fact[0] == "operation.progress"] == progress
    await real.aclose()
