"""An operation always ends: with workers that report nothing, apply_async that publishes nothing, and old state."""

import asyncio
import contextlib
from datetime import timedelta

import pytest
from celery import Task, chain, group
from kombu import Queue

from eventbus import Bus, BusSettings, Operations, configure, default_bus
from eventbus.backends.redis.operation_store import RedisOperations
from eventbus.backends.redis.publisher import RedisPublisher
from eventbus.backends.redis.reader import RedisReader
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.operations.state import PARTS_MISSING, TASK_UNREPORTED
from tests.conftest import wait_until
from tests.worker_adapter import lives as a
from tests.worker_adapter.conftest import publishing_to
from tests.worker_adapter.listening import END, SubscriptionListener
from worker_adapter import start_operation


@pytest.fixture(autouse=True)
def _here(application, redis_url):
    a.app.conf.result_backend = f"{redis_url.removesuffix('/0')}/2"
    former = default_bus()
    configure(bus=Bus(BusSettings(redis_url=redis_url, part_patience=timedelta(seconds=3))))
    with publishing_to(a.app, f"{redis_url.removesuffix('/0')}/1"):
        yield
    default_bus().close()
    configure(bus=former)


def check_leases(settings, op):
    """Check one operation's leases, as a gateway does."""

    async def check():
        reader = RedisReader(settings)
        store = RedisOperations(settings, reader)
        try:
            due = [member for member in await store.due(1_000) if member.endswith(op)]
            return [await store.expire_leases(member) for member in due]
        finally:
            await reader.aclose()

    return asyncio.run(check())


def ended(listening, op, settings=None):
    """Wait for the end, and check the leases meanwhile; return all events."""

    def has_ended(events):
        return any(e.type in END for e in events)

    def check():
        check_leases(settings or default_bus().settings, op)
        with contextlib.suppress(AssertionError):
            listening.until(has_ended, 0.3)
        return has_ended(listening.events)

    wait_until(check, "the operation to end", 30)
    return listening.events


def errors(events):
    return [e.data["error"] for e in events if e.type == "task.failed"]


def test_a_worker_without_install(redis_url, start_worker):
    listening = SubscriptionListener(redis_url, "uninstalled")
    flow = chain(
        a.app.signature("tests.worker_adapter.uninstalled.ping", queue="uninstalled"),
        a.ok.s().set(queue="unread"),
    )
    with start_worker("--pool", "solo", queue="uninstalled", app="tests.worker_adapter.uninstalled"):
        operation = start_operation(flow, user="uninstalled")
        events = ended(listening, operation.id)
    listening.close()
    assert events[-1].type == "operation.failed"
    assert errors(events) == [TASK_UNREPORTED]
    assert [e.data["name"] for e in events if e.type == "task.failed"] == ["tests.worker_adapter.uninstalled.ping"]
    assert (events[-1].data["done"], events[-1].data["failed"], events[-1].data["total"]) == (0, 1, 2)


def test_a_consumer_that_is_not_celery(redis_url):
    """A program of another language takes the message, does the work and says nothing."""
    listening = SubscriptionListener(redis_url, "foreign")
    flow = a.app.signature("other.language.resize", queue="foreign")
    operation = start_operation(flow, user="foreign")
    taken = []
    with a.app.connection_for_read() as connection, connection.SimpleQueue("foreign") as queue:
        message = queue.get(timeout=10)
        taken.append(message.headers["task"])
        message.ack()
    events = ended(listening, operation.id)
    listening.close()
    assert taken == ["other.language.resize"]
    assert events[-1].type == "operation.failed"
    assert errors(events) == [TASK_UNREPORTED]


def test_a_message_that_celery_did_not_write(redis_url, start_worker, tmp_path):
    """A program of another language starts a task of the same queue. It belongs to no operation and disturbs none."""
    listening = SubscriptionListener(redis_url, "shared")
    headers = {"lang": "go", "task": a.touch.name, "id": "from-go", "root_id": "from-go"}
    mark = tmp_path / "mark"
    body = [[str(mark)], {}, {}]
    with a.app.connection_for_write() as connection:
        producer = connection.Producer(serializer="json")
        producer.publish(
            body, routing_key="shared", headers=headers, correlation_id="from-go", declare=[Queue("shared")]
        )
    with start_worker("--pool", "solo", queue="shared", app="tests.worker_adapter.lives"):
        operation = start_operation(a.ok.si().set(queue="shared"), user="shared")
        events = ended(listening, operation.id)
        wait_until(mark.exists, "the foreign task")
    listening.close()
    assert events[-1].type == "operation.succeeded"
    assert (events[-1].data["done"], events[-1].data["total"]) == (1, 1)


class Singleton(Task):
    """As celery-singleton does: the same call twice is one message."""

    def apply_async(self, *args, **options):
        return a.app.AsyncResult("another message")


def test_an_apply_async_that_publishes_nothing(redis_url):
    @a.app.task(base=Singleton, name="tests.singleton", shared=False)
    def single():
        """Never runs here."""

    listening = SubscriptionListener(redis_url, "singleton")
    operation = start_operation(single.si(), user="singleton")
    default_bus().flush(5)
    settings = default_bus().settings
    redis = RedisPublisher(settings)
    leases = Keys(settings.key_prefix).operation("user:singleton", operation.id)[2]
    redis.execute(("ZADD", leases, "XX", 1, ""))  # the minute has passed
    redis.close()
    events = ended(listening, operation.id)
    listening.close()
    assert events[-1].type == "operation.failed"
    assert errors(events) == [PARTS_MISSING]
    assert (events[-1].data["done"], events[-1].data["total"]) == (0, 1)


def test_the_state_outlives_the_channel(redis_url, start_worker):
    """A task of a group is due when all that the channel keeps has expired."""
    brief = BusSettings(redis_url=redis_url, user_ttl=timedelta(seconds=2), key_prefix="brief")
    configure(bus=Bus(brief))
    flow = group(a.fail.si().set(queue="brief"), a.ok.si().set(queue="brief", countdown=6))
    environment = {"EVENTBUS_USER_TTL": "PT2S", "EVENTBUS_KEY_PREFIX": "brief"}
    with start_worker("--pool", "solo", queue="brief", app="tests.worker_adapter.lives", **environment):
        operation = start_operation(flow, user="brief")

        def info():
            with Operations(brief) as operations:
                return operations.get("brief", operation.id)

        wait_until(lambda: info() is None or info().over, "the second task to end", 30)
        assert (info().state, info().done, info().failed, info().total) == ("failed", 1, 1, 2)
