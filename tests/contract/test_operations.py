"""Counting an operation: Lua in Redis and Python in the process do the same, whatever comes in whatever order."""

from __future__ import annotations

import json
import uuid

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventbus.emission import EmissionBuilder
from eventbus.memory import MemoryBroker, MemoryPublisher, MemoryReader
from eventbus.operation import OperationRef, telling
from eventbus.redis.publisher import RedisPublisher
from eventbus.redis.reader import RedisReader
from eventbus.tally import Mark
from eventbus.transport import Advance

REF = OperationRef("42", "9")


def advance(ends, *marks):
    words = telling(ends.builder, REF, "a label")
    (published,) = ends.publisher.publish([Advance("user:42", REF.op, marks, words)])
    return published.counts


async def told(reader):
    history = await reader.read("user:42", 0)
    events = [json.loads(entry.record.event) for entry in history.log]
    events += [json.loads(record.event) for record in history.snapshot]
    return [(e["type"], e["data"]) for e in sorted(events, key=lambda e: e["offset"])]


async def test_an_operation_from_plan_to_end(ends):
    advance(ends, Mark("plan", planned=2), Mark("published", "starter", hidden=True))
    advance(ends, Mark("published", "a", 1), Mark("published", "b", 1), Mark("done", "starter", hidden=True))
    assert await told(ends.reader) == [("operation.progress", _data("queued", 0, 0, 2))]
    advance(ends, Mark("started", "a", 1))
    assert advance(ends, Mark("done", "a", 1)).done == 1
    counts = advance(ends, Mark("done", "b", 1))
    assert (counts.state, counts.done, counts.total) == ("succeeded", 2, 2)
    assert await told(ends.reader) == [
        ("operation.started", _data("running", 0, 0, 2)),
        ("operation.progress", _data("succeeded", 2, 0, 2)),
        ("operation.succeeded", _data("succeeded", 2, 0, 2)),
    ]


async def test_dynamic_leaves_raise_the_total_and_hidden_ones_do_not(ends):
    advance(ends, Mark("plan", planned=1), Mark("published", "a", 1), Mark("published", "x"))
    assert advance(ends, Mark("published", "celery.unlock", hidden=True)).total == 2
    advance(ends, Mark("done", "a", 1), Mark("done", "x"))
    counts = advance(ends, Mark("done", "celery.unlock", hidden=True))
    assert (counts.state, counts.done, counts.total) == ("succeeded", 2, 2)


async def test_a_leaf_counts_once_however_often_it_is_told(ends):
    advance(ends, Mark("plan", planned=2), Mark("published", "a", 1), Mark("published", "b", 1))
    for _ in range(3):
        counts = advance(ends, Mark("published", "a", 1), Mark("done", "a", 1), Mark("failed", "a", 1))
    assert (counts.done, counts.failed, counts.state) == (1, 0, "running")


async def test_an_end_that_is_heard_of_before_its_publication_ends_nothing(ends):
    assert advance(ends, Mark("done", "a", 1)).state == "running"
    assert advance(ends, Mark("published", "a", 1)).state == "succeeded"


async def test_a_failed_leaf_fails_the_operation_when_all_has_ended(ends):
    advance(ends, Mark("plan", planned=3), Mark("published", "a", 1), Mark("published", "b", 1))
    assert advance(ends, Mark("failed", "a", 1)).state == "running"
    counts = advance(ends, Mark("done", "b", 1))
    assert (counts.state, counts.done, counts.failed, counts.total) == ("failed", 1, 1, 3)
    assert (await told(ends.reader))[-1] == ("operation.failed", _data("failed", 1, 1, 3))
    assert advance(ends, Mark("done", "late", 1)).state == "failed"


def _data(state, done, failed, total):
    return {"operation": "9", "label": "a label", "state": state, "done": done, "failed": failed, "total": total}


leaves = st.sampled_from(["a", "b", "c", "h"])
marks = st.builds(
    lambda kind, leaf, planned: (
        Mark(kind, leaf, 1 if leaf in "ab" else 0, hidden=leaf == "h")
        if kind != "plan"
        else Mark("plan", planned=planned)
    ),
    st.sampled_from(["plan", "published", "published", "started", "done", "failed"]),
    leaves,
    st.integers(0, 3),
)


@given(st.lists(st.lists(marks, min_size=1, max_size=4), min_size=1, max_size=8))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_lua_and_python_count_alike(bus_settings, batches):
    one = bus_settings.model_copy(update={"key_prefix": f"t{uuid.uuid4().hex[:10]}"})
    broker = MemoryBroker(one)
    redis_end, memory_end = RedisPublisher(one), MemoryPublisher(broker)
    builder = EmissionBuilder(one)
    ended = False
    for batch in batches:
        counts = [
            publisher.publish([Advance("user:42", REF.op, batch, telling(builder, REF, "a label"))])[0].counts
            for publisher in (redis_end, memory_end)
        ]
        assert counts[0] == counts[1]
        assert counts[0].done + counts[0].failed <= counts[0].total
        assert not ended or counts[0].state in ("succeeded", "failed")
        ended = counts[0].state in ("succeeded", "failed")
        if counts[0].state == "succeeded":
            assert counts[0].done == counts[0].total
    reader = RedisReader(one)
    assert await told(reader) == await told(MemoryReader(broker))
    redis_end.close()
    await reader.aclose()
