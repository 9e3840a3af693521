"""Next to a real Flower: progress in the task's state, and the links between an operation and its tasks."""

import contextlib
import json
import os
import re
import sys
import threading
import urllib.request

import httpx
import pytest

from tests.conftest import free_port, wait_until
from tests.webui_adapter import gateways
from tests.worker_adapter import lives as a
from tests.worker_adapter.conftest import check_log, publishing_to, running
from tests.worker_adapter.listening import END, SubscriptionListener
from worker_adapter import start_operation

QUICK = {"EVENTBUS_WORKER_FLOWER_INTERVAL": "0.05", "EVENTBUS_WORKER_CANCEL_POLL": "0.05"}


@pytest.fixture
def flower(redis_url, tmp_path):
    port = free_port()
    server = redis_url.removesuffix("/0")
    environment = {**os.environ, "TESTS_REDIS": server, "FLOWER_UNAUTHENTICATED_API": "true"}
    arguments = ["flower", "--address=127.0.0.1", f"--port={port}", "--enable_events=False"]
    command = [sys.executable, "-m", "celery", "-A", "tests.worker_adapter.lives", *arguments]
    log = tmp_path / "flower"

    def get(path):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
                return response.read().decode()
        except OSError:
            return ""

    with running(command, log, env=environment):
        wait_until(lambda: get("/healthcheck"), f"Flower to answer, see {log}", 30)
        yield get
    text = log.read_text()
    assert "Traceback" not in text, text


def operation_at(gateway, user, op):
    """As a page, or a script, sees it."""
    headers = {"Authorization": f"Bearer {gateways.token(user)}"}
    return httpx.get(f"{gateway.http}{gateway.prefix}/operations/{op}", headers=headers, timeout=10).json()["operation"]


def test_flower_and_an_operation_lead_to_each_other(application, redis_url, start_worker, flower, tmp_path):
    server = redis_url.removesuffix("/0")
    a.app.conf.result_backend = f"{server}/2"
    path = tmp_path / "path"
    with (
        publishing_to(a.app, f"{server}/1"),
        start_worker(
            "--pool", "prefork", "-c", "1", "-E", queue="flower", app="tests.worker_adapter.lives", **QUICK
        ) as worker,
        gateways.running(tmp_path, redis_url) as gateway,
    ):
        listening = SubscriptionListener(redis_url, "flower")
        # Two tasks, so that the operation and the one that runs cannot be confused.
        flow = a.walk.si(str(path)).set(queue="flower") | a.ok.si().set(queue="flower")
        operation = start_operation(flow, user="flower")
        wait_until(lambda: operation_at(gateway, "flower", operation.id)["tasks"], "the task to begin")
        (runs,) = operation_at(gateway, "flower", operation.id)["tasks"]
        task = runs["task"]

        def info():
            return json.loads(flower(f"/api/task/info/{task}") or "{}")

        wait_until(lambda: info().get("state") == "PROGRESS", "Flower to show progress", 30)
        assert info()["name"] == runs["name"]
        shown = re.compile(r"12 of 40 reading \(operation ([^)]+)\)")
        wait_until(lambda: shown.search(flower(f"/task/{task}")), "Flower's page of the task to show it")
        (back,) = set(shown.findall(flower(f"/task/{task}")))
        assert operation_at(gateway, "flower", back)["state"] == "running"
        path.unlink()
        listening.until(lambda heard: any(e.type in END for e in heard))
        listening.close()
        wait_until(lambda: info().get("state") == "SUCCESS", "Flower to show the end")
        assert "walked" in info()["result"]
    check_log(worker)


@pytest.mark.parametrize("on", [["-E"], []], ids=["on", "off"])
def test_progress_events_have_an_id_and_follow_the_switch(on, application, redis_url, start_worker, tmp_path):
    server = redis_url.removesuffix("/0")
    a.app.conf.result_backend = f"{server}/2"
    path, heard, queue = tmp_path / "path", [], f"events-{len(on)}"
    with (
        publishing_to(a.app, f"{server}/1"),
        start_worker(
            "--pool", "threads", "-c", "1", *on, queue=queue, app="tests.worker_adapter.lives", **QUICK
        ) as worker,
        events_heard(heard),
    ):
        listening = SubscriptionListener(redis_url, queue)
        start_operation(a.walk.si(str(path)).set(queue=queue), user=queue)
        listening.until(lambda events: sum(e.type == "task.progress" for e in events) > 5)
        progressed = [event for event in heard if event["type"] == "task-progress"]
        if on:
            wait_until(lambda: any(e["type"] == "task-progress" for e in heard), "an event of progress")
        else:
            assert not progressed
        path.unlink()
        listening.until(lambda events: any(e.type in END for e in events))
        listening.close()
    assert all(event.get("uuid") for event in heard if event["type"].startswith("task-"))
    assert bool([event for event in heard if event["type"].startswith("task-")]) == bool(on)
    check_log(worker)


@contextlib.contextmanager
def events_heard(heard):
    """All events of the exchange, from now until a last event of this test."""
    with a.app.connection_for_read() as connection:
        receiver = a.app.events.Receiver(connection, handlers={"*": heard.append})
        thread = threading.Thread(target=_capture, args=(receiver,), daemon=True)
        thread.start()
        _send("test-first", heard)
        yield
        _send("test-last", heard)
        receiver.should_stop = True
        thread.join(10)


def _capture(receiver):
    with contextlib.suppress(TimeoutError):
        receiver.capture(limit=None, timeout=60, wakeup=False)


def _send(type_, heard):
    def is_heard():
        with a.app.events.default_dispatcher() as dispatcher:
            dispatcher.send(type_)
        return any(event["type"] == type_ for event in heard)

    wait_until(is_heard, f"the event {type_}")
