"""Runs docs/how-to/add-to-a-django-project.md: Django, the gateway and a worker of its files, and curl as the page."""

from __future__ import annotations

import re
import subprocess
import sys

import httpx
import pytest

from tests.conftest import free_port, wait_until
from tests.docs.project import answers, environment, events_until_the_end, files_of, processes
from tests.docs.sources import ROOT

PAGE = ROOT / "docs" / "how-to" / "add-to-a-django-project.md"
# The part of `django-admin startproject shop` that the page needs.
SETTINGS = """
import os

SECRET_KEY = "x" * 50
DEBUG = True
ROOT_URLCONF = "shop.urls"
CONTRIB = ("admin", "auth", "contenttypes", "sessions", "messages", "staticfiles")
INSTALLED_APPS = [*(f"django.contrib.{name}" for name in CONTRIB), "reports"]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [{
    "BACKEND": "django.template.backends.django.DjangoTemplates",
    "APP_DIRS": True,
    "OPTIONS": {"context_processors": [
        "django.template.context_processors.request",
        "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
    ]},
}]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
LOGIN_URL = "/admin/login/"
STATIC_URL = "static/"
CELERY_BROKER_URL = os.environ["BROKER"]
CELERY_RESULT_BACKEND = os.environ["BROKER"]
"""
# A user who is logged in: prints their key and their session's.
LOGIN = """
import django
django.setup()
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
call_command("migrate", verbosity=0)
user, client = User.objects.create_user("ann"), Client()
client.force_login(user)
print(user.pk, client.cookies["sessionid"].value)
"""


@pytest.mark.timeout(300)
def test_the_pages_project_reports_to_its_page(tmp_path, own_redis):
    files = files_of(PAGE, own_redis.url) | {
        "shop/settings.py": SETTINGS,
        "shop/__init__.py": "from .celery import app as celery_app\n",
        "reports/__init__.py": "",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("time.sleep(0.5)", "time.sleep(0.05)"))
    site, gateway = free_port(), free_port()
    variables = environment(tmp_path, own_redis.url) | {
        "DJANGO_SETTINGS_MODULE": "shop.settings",
        "BROKER": own_redis.url.replace("/0", "/1"),
        "WEBUI_PORT": str(gateway),
        "WEBUI_ALLOWED_ORIGINS": f"http://127.0.0.1:{site}",
    }
    login = subprocess.run(
        [sys.executable, "-c", LOGIN], cwd=tmp_path, env=variables, check=True, capture_output=True, text=True
    )
    user, session = login.stdout.split()
    commands = [
        ["django", "runserver", "--noreload", str(site)],
        ["webui_adapter"],
        ["celery", "-A", "shop", "worker", "-c", "2", "--loglevel", "warning"],
    ]
    with processes(tmp_path, variables, commands):
        wait_until(lambda: answers(f"http://127.0.0.1:{gateway}/readyz"), "the gateway to be ready", 60)
        wait_until(lambda: answers(f"http://127.0.0.1:{site}/"), "the site to be ready", 60)
        with httpx.Client(base_url=f"http://127.0.0.1:{site}", cookies={"sessionid": session}) as browser:
            page = browser.get("/").raise_for_status().text
            csrf = re.search(r'"X-CSRFToken": "(\w+)"', page)
            assert csrf
            started = browser.post("/report/", headers={"X-CSRFToken": csrf[1]}).raise_for_status().json()
            token = browser.get("/token/").raise_for_status().text
        about = events_until_the_end(f"http://127.0.0.1:{gateway}", token, started, user)
    assert any(event["type"] == "task.progress" and event["data"]["share"] == 1 for event in about)
    assert about[-1]["type"] == "operation.succeeded"
    # The same in one process: the module imports.
    subprocess.run([sys.executable, "-c", "import shop.asgi"], cwd=tmp_path, env=variables, check=True)
