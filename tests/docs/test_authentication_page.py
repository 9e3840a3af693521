"""Runs each recipe of docs/how-to/authenticate-with-your-own-function.md, in a real gateway."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.docs.project import files_of
from tests.docs.sources import ROOT
from tests.webui_adapter.gateways import Client
from tests.webui_adapter.page import Page
from webui_adapter.testing.gateway_process import GatewayProcess

PAGE = ROOT / "docs" / "how-to" / "authenticate-with-your-own-function.md"
DJANGO = """
SECRET_KEY = "x" * 50
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
"""
# A user who is logged in: prints the session's key.
LOGIN = """
import django
django.setup()
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.core.management import call_command
call_command("migrate", verbosity=0)
user = User.objects.create_user("ann", is_superuser=True)
session = SessionStore()
session[SESSION_KEY] = str(user.pk)
session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
session[HASH_SESSION_KEY] = user.get_session_auth_hash()
session.create()
print(session.session_key)
"""


@pytest.fixture
def project(tmp_path: Path, redis_url: str) -> Path:
    """The files of the page."""
    for name, text in files_of(PAGE, redis_url).items():
        (tmp_path / name).write_text(text)
    return tmp_path


class Site(GatewayProcess):
    """The stand-alone gateway with a recipe; or an application that mounts one."""

    application = ""

    def __init__(self, folder: Path, redis_url: str, **settings: object) -> None:
        paths = os.pathsep.join((str(folder), *(path or str(Path.cwd()) for path in sys.path)))
        super().__init__(folder, redis_url, f"own{time.monotonic_ns()}", jwt_secret=None, PYTHONPATH=paths, **settings)
        self._folder = folder

    def start(self) -> Self:
        command = ["-m", "webui_adapter"]
        if self.application:
            command = ["-m", "uvicorn", "--port", str(self.port), self.application]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command], env=self._environment, stderr=log, stdout=log, cwd=self._folder
            )
        return self

    def show(self, path: str = "/operations", **options: Any) -> httpx.Response:
        return httpx.get(f"{self.http}{self.prefix}{path}", timeout=10, **options)


class MountedSite(Site):
    application = "starlette_session:web"


async def who(site: Site, *, token: str | None = None, **options: Any) -> str:
    """The user whom the gateway greets; the close code if it greets none."""
    async with connect(site.ws, compression=None, **options) as connection:
        client = Client(connection, Page())
        if token is not None:
            await client.send(do="auth", token=token)
        greeting = await client.connection.recv() if token is None else await _greeting(client)
        return str(json.loads(greeting)["data"]["user"])


async def _greeting(client: Client) -> str:
    await client.until(lambda page: page.data_of("bus.hello"))
    return json.dumps(client.page.control_events[0])


async def test_api_keys(project: Path, redis_url: str) -> None:
    with Site(project, redis_url, authenticate="api_keys:authenticate", auth_deadline=1) as site:
        headers = {"X-API-Key": "a long random key"}
        assert await who(site, additional_headers=headers) == "importer"
        assert site.show(headers=headers).json() == {"operations": []}
        assert site.show(headers={"X-API-Key": "another"}).status_code == 401
        assert site.show("/sse").status_code == 401
        async with connect(site.ws) as connection:
            assert await Client(connection, Page()).closed() == 4101
        async with connect(site.ws) as connection:
            client = Client(connection, Page())
            await client.send(do="auth", token="a long random key")
            assert await client.closed() == 4500, "the function does not read this one"


@pytest.fixture
def django_key(project: Path) -> str:
    """The key of a session in the database of a Django project."""
    (project / "shop_settings.py").write_text(DJANGO)
    environment = {**os.environ, "PYTHONPATH": str(project), "DJANGO_SETTINGS_MODULE": "shop_settings"}
    command = [sys.executable, "-c", LOGIN]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


async def test_a_django_session(project: Path, redis_url: str, django_key: str) -> None:
    settings = {"authenticate": "django_session:authenticate", "DJANGO_SETTINGS_MODULE": "shop_settings"}
    with Site(project, redis_url, authenticate_timeout=10, auth_deadline=10, **settings) as site:
        headers = {"Cookie": f"sessionid={django_key}", "Origin": site.http}
        assert await who(site, additional_headers={"Cookie": headers["Cookie"]}, origin=site.http) == "1"
        assert site.show(headers=headers).status_code == 200
        assert site.show("/admin/revocations", headers=headers).status_code == 200
        assert site.show(headers={**headers, "Cookie": "sessionid=another"}).status_code == 401
        evil = site.show(headers={**headers, "Origin": "https://evil.example"})
        assert evil.status_code == 403


async def test_a_starlette_session(project: Path, redis_url: str) -> None:
    with MountedSite(project, redis_url) as site:
        async with httpx.AsyncClient(base_url=site.http) as browser:
            assert (await browser.get("/eventbus/operations")).status_code == 401
            await browser.post("/login/ann")
            assert (await browser.get("/eventbus/operations")).json() == {"operations": []}
            cookie = f"session={browser.cookies['session']}"
        assert await who(site, additional_headers={"Cookie": cookie}, origin=site.http) == "ann"


class Introspection(BaseHTTPRequestHandler):
    """A service that knows one token, and fails for another one."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        token = parse_qs(body)["token"][0]
        known = {"active": True, "sub": "ann", "exp": time.time() + 60, "scope": "eventbus:admin", "jti": "j-1"}
        answer = json.dumps(known if token == "good" else {"active": False}).encode()
        self.send_response(500 if token == "broken" else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def introspection() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Introspection)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


async def test_opaque_tokens(project: Path, redis_url: str) -> None:
    recipe = project / "opaque_tokens.py"
    with introspection() as address:
        recipe.write_text(recipe.read_text().replace("http://127.0.0.1:9000", address))
        with Site(project, redis_url, authenticate="opaque_tokens:authenticate") as site:
            assert await who(site, token="good") == "ann"
            assert await who(site, subprotocols=["eventbus.v1", "access_token.good"]) == "ann"
            assert site.show(headers={"Authorization": "Bearer good"}).status_code == 200
            assert site.show(headers={"Authorization": "Bearer bad"}).status_code == 401
            broken = site.show(headers={"Authorization": "Bearer broken"})
            assert (broken.status_code, broken.headers["Retry-After"]) == (503, "1")
            for token, code in (("bad", 4500), ("broken", 4004)):
                async with connect(site.ws) as connection:
                    client = Client(connection, Page())
                    await client.send(do="auth", token=token)
                    assert await client.closed() == code
            async with connect(site.ws) as connection:
                client = Client(connection, Page())
                await client.send(do="auth", token="good")
                await client.until(lambda page: page.data_of("bus.hello"))
                assert (await client.request(do="auth", token="good"))["type"] == "bus.ok"
                assert (await client.request(do="auth", token="bad"))["data"]["code"] == "unauthenticated"
                assert (await client.request(do="auth", token="broken"))["data"]["code"] == "unavailable"


async def test_a_development_user(project: Path, redis_url: str) -> None:
    with Site(project, redis_url, authenticate="development_user:authenticate") as site:
        assert await who(site) == "dev"
        assert site.show("/admin/revocations").status_code == 200
