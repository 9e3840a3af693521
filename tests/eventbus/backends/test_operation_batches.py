"""Events and marks of an operation in one call are what they would be one after the other."""

from __future__ import annotations

import asyncio
import json
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventbus import BusSettings, Event
from eventbus.backends.ports import RecordTransitions, Write
from eventbus.backends.redis.publisher import RedisPublisher
from eventbus.backends.redis.reader import RedisReader
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.backends.redis.scripts.operation_batches import lease_of, runs, transitions_of
from eventbus.events.encoder import EmissionBuilder
from eventbus.operations.changes import event_stamp
from eventbus.operations.state import TaskTransition

TOPIC = "user:ann:operation:1"
BUILDER = EmissionBuilder(BusSettings())


class Kept(Event, name="runs.kept"):
    n: int = 0


class State(Event, name="runs.state", keep="latest"):
    n: int = 0


class Live(Event, name="runs.live", keep="nothing"):
    n: int = 0


class PendingBatch(Event, name="runs.batch", deliver="ack"):
    n: int = 0


def write(*events, ids=()):
    emissions = [
        BUILDER.build(TOPIC, event, id_=id_)
        for event, id_ in zip(events, [*ids, *[None] * (len(events) - len(ids))], strict=True)
    ]
    return Write("user:ann", emissions)


def record(*transitions, op="1"):
    return RecordTransitions("user:ann", op, transitions, event_stamp("a label"))


STARTED = TaskTransition("started", "a", 1, lease=30_000, task_json='"task":"a"')
DONE = TaskTransition("done", "a", 1)


@pytest.mark.parametrize(
    ("requests", "lengths"),
    [
        ([write(Live()), record(STARTED), write(Live()), record(DONE)], [4]),
        ([write(Live())], [1]),
        ([record(STARTED), record(DONE, op="2")], [1, 1]),
        ([record(STARTED), write(Live()), record(DONE, op="2")], [2, 1]),
        ([write(PendingBatch()), record(STARTED), write(Kept())], [1, 2]),
        ([write(*[Kept()] * 15), record(STARTED), write(Kept())], [2, 1]),
        ([write(*[Kept()] * 40), record(STARTED)], [1, 1]),
    ],
)
def test_what_goes_together(requests, lengths):
    found = runs(requests)
    assert [len(run) for run in found] == lengths
    assert [request for run in found for request in run] == requests


def test_a_task_that_begins_and_ends_in_one_call_needs_no_lease():
    other = TaskTransition("started", "b", 1, lease=20_000, task_json='"task":"b"')
    transitions = transitions_of([record(STARTED, other), write(Live()), record(DONE)])
    assert transitions == [TaskTransition("started", "a", 1), other, DONE]
    assert lease_of(transitions) == 20_000
    assert lease_of(transitions_of([record(STARTED), write(Live()), record(DONE)])) == 0
    # The other way round it runs again.
    assert lease_of(transitions_of([record(TaskTransition("released", "a")), write(Live()), record(STARTED)])) == 30_000


@pytest.fixture
def publisher(bus_settings):
    publisher = RedisPublisher(bus_settings)
    yield publisher
    publisher.close()


def test_no_operation_is_looked_after_for_a_short_task(bus_settings, publisher, redis_server):
    leases = Keys(bus_settings.key_prefix).leases
    publisher.publish(
        [record(TaskTransition("plan", planned=2)), write(Live()), record(STARTED), write(Live()), record(DONE)]
    )
    assert not redis_server.client.exists(leases)
    publisher.publish([record(TaskTransition("started", "b", 1, lease=30_000))])
    assert redis_server.client.zrange(leases, 0, -1) == [b"user:ann 1"]


def test_an_event_with_a_known_id_is_published_once_among_transitions_too(publisher):
    (first,) = publisher.publish([write(Kept(), ids=("known",))])
    again = write(Kept(), Kept(), ids=("known", "new"))
    _, second, _ = publisher.publish([record(STARTED), again, record(DONE)])
    assert first.offsets == [1]
    assert second.offsets[0] == -1
    assert second.offsets[1] > 1


transitions = st.builds(
    TaskTransition,
    st.sampled_from(["published", "started", "released", "done", "joined", "ignored", "failed", "revoked"]),
    st.sampled_from("abc"),
    st.integers(0, 1),
    st.booleans(),
    st.sampled_from([0, 30_000]),
    st.booleans(),
    st.sampled_from(["", '"task":"t"']),
) | st.builds(TaskTransition, st.just("plan"), planned=st.integers(0, 3))
events = st.sampled_from([Kept, State, Live])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(transitions, min_size=1, max_size=3) | st.lists(events, min_size=1, max_size=2), max_size=8))
def test_together_is_as_one_after_the_other(bus_settings, batches):
    seen = []
    for together in (True, False):
        own = bus_settings.model_copy(update={"key_prefix": f"t{uuid.uuid4().hex[:10]}"})
        publisher = RedisPublisher(own)
        requests = [
            record(*batch) if isinstance(batch[0], TaskTransition) else write(*(kind(n=i) for kind in batch))
            for i, batch in enumerate(batches)
        ]
        for part in [requests] if together else [[request] for request in requests]:
            publisher.publish(part)
        seen.append(asyncio.run(_everything(own, publisher)))
        publisher.close()
    assert seen[0] == seen[1]


async def _everything(own, publisher):
    reader = RedisReader(own)
    try:
        history = await reader.read("user:ann", 0)
    finally:
        await reader.aclose()
    published = [json.loads(record.event) for record in (*(entry.record for entry in history.log), *history.snapshot)]
    names = Keys(own.key_prefix).operation("user:ann", "1")
    counts, tasks, leases = publisher.execute(("HGETALL", names[0]), ("HGETALL", names[1]), ("ZRANGE", names[2], 0, -1))
    times = {b"queued", b"started", b"heard", b"until", b"ended", b"due", b"silence"}
    pairs = {counts[i]: counts[i + 1] for i in range(0, len(counts), 2) if counts[i] not in times}
    # Leases are sorted by their time: it is one time in one call, and several after one another.
    return [(e["offset"], e["type"], e["data"]) for e in published], pairs, sorted(tasks), sorted(leases)
