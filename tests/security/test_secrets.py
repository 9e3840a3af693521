"""Canaries: secrets in every setting and in odd places of requests, and a search of all output for them."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from pydantic_settings import BaseSettings
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from eventbus import BusSettings
from tests.conftest import free_port, wait_until
from webui_adapter import GatewaySettings, create_app, gateway_router
from webui_adapter.settings import read_settings
from worker_adapter.settings import WorkerSettings

# Eight different characters at each end: a message that cuts a secret in the middle shows one of them.
HEAD, TAIL = "cAnArY7q", "9zKwXvBt"
CANARY = f"{HEAD}-0123456789-0123456789-{TAIL}"
NOWHERE = "127.0.0.1:9"

SECRETS = {
    "WEBUI_JWT_SECRET": CANARY,
    "EVENTBUS_REDIS_URL": f"redis://user:{CANARY}@{NOWHERE}/0",
    "WEBUI_BROKER_URL": f"amqp://user:{CANARY}@{NOWHERE}//",
    "WEBUI_BROKER_OPTIONS": f'{{"password": "{CANARY}"}}',
}
MISTAKES = {
    "a port": {"WEBUI_PORT": "eighty"},
    "no key file": {"WEBUI_JWT_ALGORITHM": "RS256"},
    "a missing key file": {"WEBUI_JWT_ALGORITHM": "RS256", "WEBUI_JWT_KEY_FILE": "/nowhere.pem"},
    "a short secret": {"WEBUI_JWT_SECRET": HEAD},
    "an address": {"EVENTBUS_REDIS_URL": f"http://user:{CANARY}@{NOWHERE}"},
    "a port of Redis": {"EVENTBUS_REDIS_URL": f"redis://user:{CANARY}@127.0.0.1:port/0"},
    "options that are no JSON": {"WEBUI_BROKER_OPTIONS": f"{{'password': '{CANARY}'"},
    "a limit": {"EVENTBUS_LOG_LIMIT": "-1"},
    "a setting of workers": {"EVENTBUS_WORKER_LEASE": CANARY},
}


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WEBUI_", "EVENTBUS_"))}
    return {**kept, **SECRETS, **more}


MAKERS: dict[str, Callable[[], object]] = {
    "mounted": gateway_router,
    "stand-alone": create_app,
    "bus": BusSettings,
    "gateway": GatewaySettings,
    "worker": WorkerSettings,
}


def assert_no_secret(text: str) -> None:
    found = [part for part in (HEAD, TAIL) if part in text]
    assert not found, text


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_setting_shows_no_value(monkeypatch: pytest.MonkeyPatch, maker: str, mistake: str) -> None:
    for name, value in {**SECRETS, **MISTAKES[mistake]}.items():
        monkeypatch.setenv(name, value)
    try:
        made = MAKERS[maker]()
    except Exception:  # noqa: BLE001 - whatever it is, a log would show it
        assert_no_secret(traceback.format_exc())
    else:
        assert_no_secret(f"{made!r} {made}")


def every_setting() -> Iterator[tuple[type[BaseSettings], str, str]]:
    """Class, name and variable of each setting, also of those that will be added."""
    for cls in (BusSettings, GatewaySettings, WorkerSettings):
        for name in cls.model_fields:
            yield cls, name, f"{cls.model_config['env_prefix']}{name}".upper()


# Origins and networks are no secrets, and a message has to say which of them is wrong.
PUBLIC = {"WEBUI_ALLOWED_ORIGINS", "WEBUI_TRUSTED_PROXIES"}
EVERY = {variable: (cls, name) for cls, name, variable in every_setting() if variable not in PUBLIC}


@pytest.mark.parametrize("form", ["text", "list", "object", "address"])
@pytest.mark.parametrize("variable", EVERY)
def test_no_setting_shows_its_value(monkeypatch: pytest.MonkeyPatch, variable: str, form: str) -> None:
    """A secret in any setting, of the right or the wrong form: no error shows it, and no repr of a secret one."""
    forms = {
        "list": f'["{CANARY}"]',
        "object": f'{{"a": "{CANARY}"}}',
        "address": f"redis://u:{CANARY}@{NOWHERE}/x/y/z",
    }
    cls, name = EVERY[variable]
    for known, value in {**SECRETS, variable: forms.get(form, CANARY)}.items():
        monkeypatch.setenv(known, value)
    for make in (cls, lambda: read_settings(cls)):
        try:
            made = make()
        except Exception:  # noqa: BLE001 - whatever it is, a log would show it
            assert_no_secret(traceback.format_exc())
        else:
            field = cls.model_fields[name]
            if not field.repr or "Secret" in str(field.annotation):
                assert_no_secret(f"{made!r} {made}")


def test_each_secret_setting_is_hidden() -> None:
    """A name that says that its value is secret has a type, or an option, that hides it."""
    named = [(cls, name) for cls, name in EVERY.values() if re.search("secret|password|_key$|_url$|options", name)]
    shown = {
        name
        for cls, name in named
        if cls.model_fields[name].repr and "Secret" not in str(cls.model_fields[name].annotation)
    }
    assert shown <= {"jwks_url"}, "an address without a password"
    assert {"jwt_secret", "redis_url", "broker_url", "broker_options"} <= {name for _, name in named}


def test_each_mistake_is_one() -> None:
    """The messages above are those of mistakes, not of good settings."""
    script = "from webui_adapter.settings import GatewaySettings\nGatewaySettings()"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(WEBUI_PORT="eighty"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "port" in done.stderr
    assert_no_secret(done.stderr + done.stdout)


@pytest.fixture(scope="module", params=["stand-alone", "mounted"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A gateway that logs all it can, without Redis and broker."""
    port, log = free_port(), tmp_path_factory.mktemp("canary") / "log"
    command = ["-m", "webui_adapter"]
    if request.param == "mounted":
        command = ["-m", "uvicorn", "tests.security.secrets_app:app", "--port", str(port), "--log-level", "debug"]
    settings = environment(WEBUI_PORT=str(port), WEBUI_LOG_LEVEL="debug", WEBUI_AUTH_DEADLINE="1")
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, *command], env=settings, stdout=output, stderr=output)
        try:
            yield f"127.0.0.1:{port}", log
        finally:
            process.terminate()
            process.wait(20)
    assert_no_secret(log.read_text(encoding="utf-8", errors="replace"))


async def test_requests_with_secrets_leave_none_in_logs_or_answers(served: tuple[str, Path]) -> None:
    host, log = served
    wait_until(lambda: _healthy(host), "the gateway", 60)
    texts = []
    headers = {"Authorization": f"Bearer {CANARY}"}
    places: list[tuple[str, dict[str, str], dict[str, str]]] = [
        (f"/eventbus/sse?token={CANARY}", {}, {}),
        (f"/eventbus/sse?access_token={CANARY}&key={CANARY}", {}, {}),
        ("/eventbus/sse", headers, {}),
        ("/eventbus/operations", headers, {}),
        ("/eventbus/dead-letters", headers, {}),
        ("/eventbus/sse", {}, {"access_token": CANARY}),
        ("/metrics", {}, {}),
        ("/readyz", {}, {}),
    ]
    async with httpx.AsyncClient(base_url=f"http://{host}", timeout=10) as client:
        for path, more, cookies in places:
            client.cookies = httpx.Cookies(cookies)
            async with client.stream("GET", path, headers=more) as answer:
                if answer.headers.get("content-type", "").startswith("text/event-stream"):
                    texts.append(await anext(answer.aiter_text()))
                else:
                    texts.append((await answer.aread()).decode())
    for query, more in ((f"?token={CANARY}", {}), ("", headers)):
        with contextlib.suppress(WebSocketException, OSError):
            async with connect(f"ws://{host}/eventbus/ws{query}", additional_headers=more) as socket:
                texts.append(str(await socket.recv()))
    assert_no_secret("\n".join(texts))
    assert log.stat().st_size > 0


def _healthy(host: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"http://{host}/healthz").status_code == 200
    return False
