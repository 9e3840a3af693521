"""A cancellation over the broker: the gateway sends Celery's remote control command to real workers."""

import json
import uuid

import httpx
import pytest
from celery import Celery

from eventbus import Bus, BusSettings
from eventbus.operations.events import STAMP, OperationRef
from eventbus.operations.state import TaskTransition
from tests.conftest import free_port, wait_until
from tests.webui_adapter.gateways import running, token

MINE, THEIRS = OperationRef("ann", "9"), OperationRef("bob", "9")


class Publisher:
    """An application that publishes stamped tasks, as the operation's messages are."""

    def __init__(self, broker, options, queue):
        self._app = Celery("publisher", broker=broker, set_as_current=False)
        self._app.conf.broker_transport_options = options
        self._queue = queue

    def send(self, ref):
        stamps = {"stamped_headers": [STAMP], STAMP: [ref.stamp]}
        return self._app.send_task("tests.worker_adapter.app.outside", queue=self._queue, **stamps).id

    def close(self):
        self._app.close()


def cancel(gateway, ref):
    url = f"{gateway.http}{gateway.prefix}/operations/{ref.op}/cancel"
    return httpx.post(url, headers={"Authorization": f"Bearer {token(ref.user)}"}, timeout=10)


@pytest.fixture
def prefix(redis_url):
    """A key prefix under which both have an operation of the same id."""
    prefix = f"rv{uuid.uuid4().hex[:8]}"
    bus = Bus(BusSettings(redis_url=redis_url, key_prefix=prefix))
    for ref in (MINE, THEIRS):
        bus.record_transition(ref, TaskTransition("plan", planned=1))
        bus.record_transition(ref, TaskTransition("published", "a", 1))
    assert bus.flush(10)
    bus.close()
    return prefix


BROKERS = {
    "redis": ("redis", {}),
    "global_keyprefix": ("redis", {"global_keyprefix": "shop-"}),
    "rabbitmq": ("rabbitmq", {}),
}


@pytest.mark.parametrize(("broker", "options"), BROKERS.values(), ids=BROKERS)
def test_workers_receive_a_cancellation(broker, options, tmp_path, redis_url, broker_url, start_worker, prefix):
    """Over the broker alone: under this key prefix the worker finds nothing in the bus' Redis."""
    address, queue = broker_url(broker), uuid.uuid4().hex
    settings = {"broker_url": address, "broker_options": json.dumps(options)}
    publisher = Publisher(address, options, queue)
    environment = {"TESTS_BROKER_OPTIONS": json.dumps(options)}
    # Killed: without heartbeats and processes, any idle worker of RabbitMQ notices a SIGTERM seconds later.
    with (
        start_worker("--pool", "solo", queue=queue, broker=broker, patience=0, **environment) as worker,
        running(tmp_path, redis_url, prefix, **settings) as gateway,
    ):

        def ran(task):
            return f"outside[{task}] succeeded" in worker.log.read_text()

        before = publisher.send(MINE)
        wait_until(lambda: ran(before), "the worker to work at all")
        assert cancel(gateway, MINE).json()["operation"]["state"] == "cancelled"
        sent = 'eventbus_revokes_total{how="sent"}'
        wait_until(lambda: gateway.metrics().get(sent) == 1, f"it to be sent; {gateway.log.read_text()}")

        def discarded():
            task = publisher.send(MINE)
            wait_until(lambda: worker.log.read_text().count(task) > 1, "the task to be taken up")
            return f"Discarding revoked task: tests.worker_adapter.app.outside[{task}]" in worker.log.read_text()

        wait_until(discarded, "the worker to have heard")
        another = publisher.send(THEIRS)
        wait_until(lambda: ran(another), "another user's operation of the same id to go on")
        cancel(gateway, MINE)
        cancel(gateway, THEIRS)
        wait_until(lambda: gateway.metrics()[sent] == 2, "the other one to be sent")
        # In the same message or in one before it: if the first had been sent again, it would have been counted by now.
        assert gateway.metrics()[sent] == 2
    publisher.close()


@pytest.mark.parametrize("where", ["redis://127.0.0.1:{port}/1", "amqp://127.0.0.1:{port}//"])
def test_the_page_does_not_notice_an_unreachable_broker(where, tmp_path, redis_url, prefix):
    settings = {"broker_url": where.format(port=free_port()), "broker_timeout": 0.3}
    with running(tmp_path, redis_url, prefix, **settings) as gateway:
        assert cancel(gateway, MINE).json()["operation"]["state"] == "cancelled"
        failed = 'eventbus_revokes_total{how="failed"}'
        wait_until(lambda: gateway.metrics().get(failed) == 1, "the failure to be counted")
        assert "cannot revoke" in gateway.log.read_text()
        assert cancel(gateway, THEIRS).json()["operation"]["state"] == "cancelled"
        wait_until(lambda: gateway.metrics().get(failed) == 2, "the next one to be tried, too")
        assert cancel(gateway, MINE).status_code == 200
        wait_until(lambda: gateway.metrics().get(failed) == 3, "the first one, when the user cancels again")


def test_the_gateway_gives_up_on_a_silent_broker(tmp_path, redis_url, prefix):
    import socket  # noqa: PLC0415 - only here

    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = {"broker_url": f"redis://127.0.0.1:{silent.getsockname()[1]}/1", "broker_timeout": 0.3}
        with running(tmp_path, redis_url, prefix, **settings) as gateway:
            assert cancel(gateway, MINE).status_code == 200
            failed = 'eventbus_revokes_total{how="failed"}'
            wait_until(lambda: gateway.metrics().get(failed) == 1, "the failure to be counted")
            assert cancel(gateway, THEIRS).status_code == 200
            wait_until(lambda: gateway.metrics().get(failed) == 2, "the thread to be free for the next one")
