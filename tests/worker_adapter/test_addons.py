"""Operations with the usual add-ons of Celery. A test is skipped if its add-on is not installed.

``nox -s addons`` installs them from ``addons.txt``.
"""

import importlib.util
import os
import sys
from datetime import timedelta

import pytest

from eventbus import BusSettings
from eventbus.operations.state import TASK_UNREPORTED
from tests.conftest import wait_until
from tests.worker_adapter.conftest import running
from tests.worker_adapter.lifecycle.test_always_ends import ended
from tests.worker_adapter.listening import END, SubscriptionListener

# Name -> module. The tasks of the first ones must behave as without the add-on.
TRANSPARENT = {
    "none": "celery",
    "sentry": "sentry_sdk",
    "datadog": "ddtrace",
    "opentelemetry": "opentelemetry.instrumentation.celery",
    "singleton": "celery_singleton",
    "once": "celery_once",
    "progress": "celery_progress",
    "tenacity": "tenacity",
    "redbeat": "redbeat",
    "django_results": "django_celery_results",
}

SITE = """
from celery import chain, chord
from worker_adapter import start_operation
from tests.worker_adapter import addons as a

flow = chain(a.work.si(number=1, children=2), chord([a.work.si(number=2), a.work.si(number=3)], a.work.si(number=4)))
if "django_results" == a.ADDON:
    flow = chain(a.work.si(number=1, children=2), a.work.si(number=2), a.work.si(number=3), a.work.si(number=4))
flow |= a.again.si()
if a.ADDON == "batches":
    flow = a.many.s()
start_operation(flow, user="{user}")
from eventbus import default_bus
default_bus().close()
"""


def is_installed(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def run_site(addon, user, log, environment):
    """Start an operation in a process that has the add-on, as a web process has."""
    command = [sys.executable, "-c", SITE.replace("{user}", user)]
    with running(command, log, env={**os.environ, **environment, "ADDON": addon}) as site:
        wait_until(lambda: site.poll() is not None, f"the site, see {log}", 60)
    assert site.returncode == 0, log.read_text()


@pytest.fixture
def environment(redis_url, tmp_path):
    return {
        "TESTS_REDIS": redis_url.removesuffix("/0"),
        "EVENTBUS_REDIS_URL": redis_url,
        "ADDON_DATABASE": str(tmp_path / "database"),
    }


@pytest.mark.parametrize("addon", TRANSPARENT)
def test_an_operation_with_an_addon(addon, redis_url, start_worker, tmp_path, environment):
    if not is_installed(TRANSPARENT[addon]):
        pytest.skip(f"{TRANSPARENT[addon]} is not installed")
    if addon == "django_results":
        prepare = "from tests.worker_adapter import addons; from django.core.management import call_command; "
        with running(
            [sys.executable, "-c", f"{prepare}call_command('migrate')"],
            tmp_path / "migrate",
            env={**os.environ, **environment, "ADDON": addon},
        ) as migrate:
            wait_until(lambda: migrate.poll() is not None, "the tables", 60)
    listening = SubscriptionListener(redis_url, f"addon-{addon}")
    arguments = ["--pool", "prefork", "-c", "2"]
    with start_worker(
        *arguments, queue=f"addon-{addon}", app="tests.worker_adapter.addons", ADDON=addon, **environment
    ) as worker:
        run_site(addon, listening.user, tmp_path / "site", environment)
        events = listening.until(lambda heard: any(e.type in END for e in heard), 60)
    listening.close()
    assert events[-1].type == "operation.succeeded", worker.log.read_text()
    assert (events[-1].data["done"], events[-1].data["total"]) == (7, 7)
    documents = sorted(e.data["document"] for e in events if e.type == "testing.indexed")
    assert documents == ["1", "100", "101", "2", "3", "4"]
    assert "Signal handler" not in worker.log.read_text()


def test_an_operation_with_celery_batches_ends_with_the_reason(redis_url, start_worker, tmp_path, environment):
    """Celery sends no signal for a task of a batch."""
    if not is_installed("celery_batches"):
        pytest.skip("celery_batches is not installed")
    listening = SubscriptionListener(redis_url, "addon-batches")
    with start_worker(
        "--pool",
        "prefork",
        "-c",
        "1",
        queue="addon-batches",
        app="tests.worker_adapter.addons",
        ADDON="batches",
        **environment,
    ):
        run_site("batches", listening.user, tmp_path / "site", {**environment, "EVENTBUS_PART_PATIENCE": "PT2S"})
        settings = BusSettings(redis_url=redis_url, part_patience=timedelta(seconds=2))
        listening.until(lambda heard: any(e.type == "operation.queued" for e in heard), 30)
        events = ended(listening, listening.events[0].data["operation"], settings)
    listening.close()
    assert [e.data["error"] for e in events if e.type == "task.failed"] == [TASK_UNREPORTED]
