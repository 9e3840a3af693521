"""An application with one of the usual add-ons of Celery, which ``ADDON`` names."""

import os
import sys

from celery import Celery, Task

from eventbus import emit
from tests.eventbus.testing.events import Indexed
from worker_adapter import install, track

ADDON = os.environ.get("ADDON", "none")
server = os.environ.get("TESTS_REDIS", "redis://127.0.0.1:6379")
app = Celery("tests.worker_adapter.addons", broker=f"{server}/1", backend=f"{server}/2")
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_default_queue=f"addon-{ADDON}",
    include=["tests.worker_adapter.addons"],
    redbeat_redis_url=f"{server}/4",
)
install(app)
base: type = Task


def _sentry():
    import sentry_sdk
    from sentry_sdk.integrations.celery import CeleryIntegration

    sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", integrations=[CeleryIntegration()], traces_sample_rate=1.0)


def _datadog():
    os.environ.setdefault("DD_TRACE_ENABLED", "true")
    os.environ.setdefault("DD_TRACE_AGENT_URL", "http://127.0.0.1:9")
    from ddtrace import config, patch

    config.celery["distributed_tracing"] = True
    patch(celery=True)


def _opentelemetry():
    from opentelemetry.instrumentation.celery import CeleryInstrumentor

    CeleryInstrumentor().instrument()


def _singleton():
    global base
    from celery_singleton import Singleton

    app.conf.singleton_backend_url = f"{server}/4"
    base = Singleton


def _once():
    global base
    from celery_once import QueueOnce

    app.conf.ONCE = {"backend": "celery_once.backends.Redis", "settings": {"url": f"{server}/4", "default_timeout": 60}}
    base = QueueOnce


def _django_results():
    import django
    from django.conf import settings

    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("ADDON_DATABASE", ":memory:")}
    settings.configure(DATABASES={"default": database}, INSTALLED_APPS=["django_celery_results"], USE_TZ=True)
    django.setup()
    app.conf.update(result_backend="django-db", result_extended=True)


def _redbeat():
    import redbeat  # noqa: F401 - its beat stores the entries; the worker has only its settings

    app.conf.beat_scheduler = "redbeat.RedBeatScheduler"


def _batches():
    """Only the task ``many`` uses it."""


def _progress():
    """Only the task ``work`` uses it."""


def _tenacity():
    """Only the task ``work`` uses it."""


if ADDON != "none":
    getattr(sys.modules[__name__], f"_{ADDON}")()


def _attempt(number, failures=[]):  # noqa: B006 - counts over the attempts
    if not failures:
        failures.append(number)
        raise ConnectionError("not yet")


@app.task(base=base, bind=True)
def work(self, *args, number=0, children=0):
    if ADDON == "tenacity":
        from tenacity import retry, stop_after_attempt

        retry(stop=stop_after_attempt(3))(_attempt)(number)
    if ADDON == "progress":
        from celery_progress.backend import ProgressRecorder

        ProgressRecorder(self).set_progress(1, 3, "reading")
    for _ in track(range(3)):
        pass
    emit(Indexed(document=f"{number}"))
    for child in range(children):
        work.delay(number=100 * number + child)
    return number


@app.task(bind=True, max_retries=1)
def again(self):
    if not self.request.retries:
        raise self.retry(countdown=0)


if ADDON == "batches":
    from celery_batches import Batches

    @app.task(base=Batches, flush_every=1, flush_interval=0.1)
    def many(requests):
        for request in requests:
            app.backend.mark_as_done(request.id, None, request=request)
