"""An operation in Redis for the tests, used like a worker and a gateway do."""

from __future__ import annotations

import json

from eventbus.backends.ports import RecordTransitions
from eventbus.backends.redis.operation_client import Operations
from eventbus.backends.redis.publisher import RedisPublisher
from eventbus.backends.redis.reader import RedisReader
from eventbus.backends.redis.scripts import operations as calls
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.operations.changes import event_stamp
from eventbus.operations.events import OperationRef
from eventbus.operations.state import SILENCE, TaskTransition

REF = OperationRef("42", "9")


async def events_of(reader):
    history = await reader.read("user:42", 0)
    events = [json.loads(entry.record.event) for entry in history.log]
    events += [json.loads(record.event) for record in history.snapshot]
    return [(e["type"], e["data"]) for e in sorted(events, key=lambda e: e["offset"])]


def data(state, done, failed, total):
    return {"operation": "9", "label": "a label", "state": state, "done": done, "failed": failed, "total": total}


def joined(task):
    return TaskTransition("joined", task, 1, lease=60_000)


def start(task, planned=1, lease=60_000, acks_late=False):
    task_json = f'"task":"t-{task}","name":"shop.{task}","retries":0'
    return TaskTransition("started", task, planned, lease=lease, acks_late=acks_late, task_json=task_json)


class Redis:
    """An operation in Redis, used like a worker and a gateway do."""

    def __init__(self, settings):
        self.settings, self.keys = settings, Keys(settings.key_prefix)
        self.end, self.reader = RedisPublisher(settings), RedisReader(settings)
        self.client = Operations(settings)

    def record(self, *transitions):
        (published,) = self.end.publish([RecordTransitions("user:42", REF.op, transitions, event_stamp("a label"))])
        return published.counts

    def cancel(self):
        return self.end.run(calls.cancel(self.settings, self.keys, "user:42", REF.op, event_stamp("")))

    def age(self, task):
        """Set the end of a lease to the past."""
        self.end.execute(("ZADD", self.keys.operation("user:42", REF.op)[2], "XX", 1, task))

    def silence(self, *, heard=True, due=False):
        """Set the end of the silence to the past, and with it the last report."""
        counts, _, leases = self.keys.operation("user:42", REF.op)
        self.end.execute(("ZADD", leases, "XX", 1, SILENCE))
        if heard:
            self.end.execute(("HSET", counts, "heard", 1, *(("due", 0) if due else ())))

    def expire_leases(self):
        return self.end.run(calls.expire_leases(self.settings, self.keys, "user:42", REF.op, event_stamp("")))

    async def events(self):
        return await events_of(self.reader)

    async def aclose(self):
        self.end.close()
        self.client.close()
        await self.reader.aclose()


async def changes(real):
    return [type_.removeprefix("operation.") for type_, _ in await real.events() if type_ != "operation.progress"]
