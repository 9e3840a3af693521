"""Operations with the usual add-ons of Celery. ``nox -s addons`` installs them from ``addons.txt``.

That session sets TESTS_ADDONS. Other runs do not collect this file, since some add-ons hold Celery at an older version.
"""

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

# The tasks behave as without the add-on.
TRANSPARENT = (
    "none",
    "sentry",
    "datadog",
    "opentelemetry",
    "singleton",
    "once",
    "progress",
    "tenacity",
    "redbeat",
    "django_results",
)

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


@pytest.mark.parametrize("addon", ["batches"])
def test_an_operation_with_celery_batches_ends_with_the_reason(addon, redis_url, start_worker, tmp_path, environment):
    """Celery sends no signal for a task of a batch."""
    listening = SubscriptionListener(redis_url, "addon-batches")
    with start_worker(
        "--pool",
        "prefork",
        "-c",
        "1",
        queue="addon-batches",
        app="tests.worker_adapter.addons",
        ADDON=addon,
        **environment,
    ):
        run_site(addon, listening.user, tmp_path / "site", {**environment, "EVENTBUS_PART_PATIENCE": "PT2S"})
        settings = BusSettings(redis_url=redis_url, part_patience=timedelta(seconds=2))
        listening.until(lambda heard: any(e.type == "operation.queued" for e in heard), 30)
        events = ended(listening, listening.events[0].data["operation"], settings)
    listening.close()
    assert [e.data["error"] for e in events if e.type == "task.failed"] == [TASK_UNREPORTED]
