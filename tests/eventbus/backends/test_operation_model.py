"""A property test feeds Lua and the state machine with the same transitions."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventbus.operations.state import ENDED, SILENCE, Counts, TaskTransition
from eventbus.operations.state_machine import OperationStateMachine
from tests.eventbus.backends.operation import Redis, data

KINDS = [
    "published",
    "started",
    "started",
    "started",
    "released",
    "done",
    "done",
    "joined",
    "ignored",
    "failed",
    "revoked",
]
tasks = st.sampled_from(["a", "b", "a", "b", "c", "h"])


def transition(kind: str, task: str, acks_late: bool, delay: int = 0) -> TaskTransition:
    return TaskTransition(
        kind,
        task,
        1 if task in "ab" else 0,
        internal=task == "h",
        lease=60_000 if kind in ("started", "joined") else delay,
        acks_late=acks_late,
        task_json=f'"task":"{task}","name":"n","retries":0' if kind in ("published", "started") else "",
    )


delays = st.sampled_from([0, 0, 10_000])
transitions = st.builds(transition, st.sampled_from(KINDS), tasks, st.booleans(), delays)


@st.composite
def steps(draw: st.DrawFn) -> object:
    """One call of a worker or a gateway. Of eleven, one cancels and two expire a lease."""
    number = draw(st.integers(0, 10))
    if number == 10:
        return "cancel"
    if number >= 8:
        return "expire", draw(st.one_of(tasks, st.sampled_from(["", SILENCE])))
    if number == 7:
        return [TaskTransition("plan", planned=draw(st.integers(0, 3)))]
    return draw(st.lists(transitions, min_size=1, max_size=4))


def begun(rest: list[object]) -> list[object]:
    """Most operations begin with their plan, and the publication and start of its tasks."""
    plan = [TaskTransition("plan", planned=2), *(TaskTransition("published", task, 1) for task in "ab")]
    return [plan, [transition("started", "a", True)], *rest]


batches_of = st.lists(steps(), min_size=1, max_size=10) | st.lists(steps(), min_size=3, max_size=10).map(begun)


async def compare(bus_settings, batches) -> Counter[str]:
    """Feed Lua and the state machine with the same steps.

    Returns what happened: the changes, the state at the end, and ``released`` for each run that a worker returned.
    """
    patience = {"part_patience": timedelta(hours=1)}
    real = Redis(bus_settings.model_copy(update={"key_prefix": f"t{uuid.uuid4().hex[:10]}", **patience}))
    machine, ended, changes_seen = OperationStateMachine(patience=3_600_000), False, []
    happened: Counter[str] = Counter()
    for step in batches:
        if step == "cancel":
            counts = real.cancel()
            changes_seen += [] if counts is None else machine.cancel(5)
        elif isinstance(step, tuple):
            real.age(step[1])
            if step[1] == SILENCE and machine.tasks:
                real.silence(due=True)
                machine.heard = machine.due = -3_600_000
            counts = real.expire_leases().counts
            if step[1] in machine.leases:
                machine.leases[step[1]] = 1
            changes_seen += [] if counts is None else machine.expire_leases(5, 60_000)
        else:
            counts = real.record(*step)
            running = machine.running
            changes_seen += machine.apply(step, 5)
            happened["released"] += [one.kind for one in step] == ["released"] and machine.running < running
        assert counts in (None, machine.counts())
        if counts is not None:
            assert counts.done + counts.failed <= counts.total
            assert not ended or counts.state in ENDED
            ended = counts.state in ENDED
            assert ended or counts.done < max(counts.total, 1), "a bar is full only at the end"
            assert counts.state != "succeeded" or counts.done == counts.total
        assert machine.running == sum(state in "rR" for state in machine.tasks.values())
        assert machine.lost == sum(state == "l" for state in machine.tasks.values())
    expected = [(f"operation.{change}", data(c.state, c.done, c.failed, c.total)) for change, c in changes_seen]
    progress = [fact for fact in expected if fact[0] == "operation.progress"][-1:]
    lasting = [fact for fact in expected if fact[0] != "operation.progress"]
    found = [fact for fact in await real.events() if fact[0] != "task.failed"]
    assert [fact for fact in found if fact[0] != "operation.progress"] == lasting
    assert [fact for fact in found if fact[0] == "operation.progress"] == progress
    assert [facts["state"] for _, facts in progress] in ([], [machine.state]), "the snapshot has the present state"
    info = real.client.get("42", "9")
    assert info is None or Counts(info.state, info.done, info.failed, info.total) == machine.counts()
    await real.aclose()
    return happened + Counter(change for change, _ in changes_seen)


@given(batches_of)
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_lua_and_python_count_alike(bus_settings, batches):
    await compare(bus_settings, batches)


ENDINGS = {
    "succeeded": [("done", "a"), ("started", "b"), ("done", "b"), ("done", "c"), ("done", "h")],
    "failed": [("failed", "a"), ("started", "b"), ("done", "b"), ("failed", "c"), ("done", "h")],
    "cancelled": ["cancel", ("released", "a"), ("released", "b"), ("done", "c"), ("revoked", "a"), ("revoked", "b")],
    "lost": [("released", "a"), ("started", "a"), ("expire", "a"), ("started", "a"), ("expire", "a"), ("expire", "a")],
}


def story(seed: int) -> list[object]:
    """An operation with a plan, a few random steps and the steps of one of the endings. The same for the same seed."""
    chance = random.Random(seed)
    steps: list[object] = begun([])
    for _ in range(chance.randint(0, 3)):
        kinds = chance.choices(
            ["started", "released", "published", "done", "joined"], [4, 3, 2, 1, 1], k=chance.randint(1, 2)
        )
        steps.append([transition(kind, chance.choice("abbch"), chance.random() < 0.7) for kind in kinds])
    for step in ENDINGS[[*ENDINGS][seed % len(ENDINGS)]]:
        if step == "cancel" or step[0] == "expire":
            steps.append(step)
        else:
            steps.append([transition(*step, acks_late=True)])
    return steps


async def test_lua_and_python_count_alike_in_each_ending(bus_settings):
    happened: Counter[str] = Counter()
    for seed in range(80):
        happened += await compare(bus_settings, story(seed))
    few = {
        name: happened[name] for name in (*ENDED, "released", "lost", "resumed", "cancelling") if happened[name] < 10
    }
    assert not few, "each of them has to be compared often"
