"""The check of Celery's internals when a worker starts."""

import subprocess
import sys

import pytest
from celery import Task
from celery.worker.consumer import Consumer
from celery.worker.request import Request

from eventbus import EventBusError
from eventbus.errors import UnsupportedVersion
from tests.worker_adapter.conftest import ROOT
from worker_adapter.lifecycle.celery_internals import check_internals


def test_the_installed_celery_has_everything():
    check_internals()


@pytest.mark.parametrize(
    ("holder", "name", "missing"),
    [
        (Request, "_already_revoked", "Request._already_revoked"),
        (Consumer, "on_decode_error", "Consumer.on_decode_error"),
    ],
)
def test_a_missing_attribute_is_named_with_a_way_out(monkeypatch, holder, name, missing):
    monkeypatch.delattr(holder, name)
    with pytest.raises(UnsupportedVersion, match=f"lacks {missing}, .*pip install") as caught:
        check_internals()
    assert isinstance(caught.value, EventBusError)
    assert (caught.value.package, caught.value.missing) == ("celery", (missing,))


def test_a_renamed_variable_of_retry_is_named(monkeypatch):
    def retry(self, error=None, eta=None, countdown=None):
        """``exc`` is missing."""

    monkeypatch.setattr(Task, "retry", retry)
    with pytest.raises(UnsupportedVersion, match=r"variable exc of Task\.retry"):
        check_internals()


def test_a_worker_does_not_start_without_them():
    program = (
        "import sys, celery.worker.request as request; del request.Request._already_revoked;"
        "from celery import Celery; from worker_adapter import install;"
        "app = Celery('x', broker='memory://'); install(app);"
        "app.worker_main(['worker', '--pool', 'solo', '-l', 'ERROR'])"
    )
    options = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 60}
    ended = subprocess.run([sys.executable, "-c", program], check=False, **options)
    assert ended.returncode != 0
    assert "lacks Request._already_revoked, which celery-eventbus uses" in ended.stdout + ended.stderr
