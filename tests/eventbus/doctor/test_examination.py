"""``eventbus doctor`` at real servers: a good one with roles, a bad one, and none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from eventbus.testing.redis_server import RedisServer, free_port
from tests.servers.acl import RoleServer

SECRET = "0123456789abcdef" * 4
GATEWAY = {"WEBUI_JWT_SECRET": SECRET, "WEBUI_JWT_AUDIENCE": "site", "WEBUI_MAX_TOTAL_CONNECTIONS": "10"}


class GoodServer(RoleServer):
    """Users of the roles, a limit and an append-only file."""

    def command(self) -> list[str]:
        return [*super().command(), "--maxmemory", "100mb", "--appendonly", "yes", "--appendfsync", "no"]


class BadServer(RedisServer):
    """Evicts, keeps nothing, asks for no password."""

    def command(self) -> list[str]:
        options = ("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru", "--protected-mode", "no")
        return [*super().command(), *options]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoodServer]:
    server = GoodServer(tmp_path_factory.mktemp("good"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BadServer]:
    server = BadServer(tmp_path_factory.mktemp("bad"))
    server.start()
    yield server
    server.kill()


def doctor(url: str, *arguments: str, **environment: str) -> tuple[int, dict[str, dict[str, str]], str]:
    """Run the command. Return its exit code, its findings by check, and all that it wrote."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("WEBUI_", "EVENTBUS_"))}
    done = subprocess.run(
        [sys.executable, "-m", "eventbus", "doctor", "--json", *arguments],
        env={**inherited, "EVENTBUS_REDIS_URL": url, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, {finding["check"]: finding for finding in found}, done.stdout + done.stderr


def of_status(found: dict[str, dict[str, str]], status: str) -> set[str]:
    return {name for name, finding in found.items() if finding["status"] == status}


@pytest.mark.parametrize("role", ["admin", "gateway"])
def test_a_good_server(good: GoodServer, role: str) -> None:
    code, found, text = doctor(good.url_of(role), "--strict", **GATEWAY)
    assert code == 0, text
    assert of_status(found, "error") == of_status(found, "warning") == set()
    assert of_status(found, "unknown") == {"format"}, "no gateway runs"
    assert found["user"]["text"].startswith(f"eventbus-{role}")
    assert SECRET not in text
    assert "password-of" not in text
    assert not [one for one in good.denied() if "config" not in one and "acl|getuser" not in one]


def test_a_bad_server(bad: BadServer) -> None:
    weak = {"WEBUI_JWT_SECRET": "a" * 16, "WEBUI_ALLOWED_ORIGINS": "http://shop.example"}
    code, found, text = doctor(bad.url, **weak, WEBUI_MAX_TOTAL_CONNECTIONS="100000000")
    assert code == 1
    assert of_status(found, "error") == {"eviction", "protected-mode", "token-key", "descriptors"}, text
    assert of_status(found, "warning") >= {"password", "user", "persistence", "origins", "token-claims"}
    assert "aaaa" not in text


def test_a_role_without_a_right(good: GoodServer) -> None:
    """The user of the metrics runs no scripts and publishes nothing."""
    code, found, _ = doctor(good.url_of("metrics"))
    assert code == 1
    assert {"rights", "round-trip"} <= of_status(found, "error")
    assert "subscribe" in found["rights"]["text"]
    assert of_status(found, "unknown") >= {"token-key", "origins", "clock"}


def test_no_server() -> None:
    code, found, _ = doctor(f"redis://user:secret-phrase@127.0.0.1:{free_port()}/0")
    assert code == 1
    assert found["connection"]["status"] == "error"


def test_a_wrong_password(good: GoodServer) -> None:
    code, found, text = doctor(good.url_of("admin").replace("password-of", "wrong"))
    assert (code, found["connection"]["status"]) == (1, "error")
    assert "wrong" not in text.replace("wrong username", "").replace("wrongpass", "").replace("WRONGPASS", "")


@pytest.mark.parametrize("environment", [{"EVENTBUS_LOG_LIMIT": "-1"}, {"EVENTBUS_REDIS_URL": "http://x"}])
def test_a_mistake_in_a_setting(environment: dict[str, str]) -> None:
    code, _, text = doctor(**{"url": "redis://127.0.0.1:1/0", **environment})  # type: ignore[arg-type]
    assert code == 2
    assert "EVENTBUS_" in text


def test_a_mistake_in_a_setting_of_the_gateway(bad: BadServer) -> None:
    code, found, _ = doctor(bad.url, WEBUI_JWT_SECRET="short", WEBUI_PORT="eighty")
    assert code == 1
    assert "WEBUI_PORT" in found["gateway"]["text"]


def test_people_read_lines(bad: BadServer) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "eventbus", "doctor"],
        env={**os.environ, "EVENTBUS_REDIS_URL": bad.url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "→ set maxmemory-policy noeviction" in done.stdout
    assert "checks: " in done.stderr


def test_each_node_of_a_cluster(redis_cluster: object) -> None:
    code, _, text = doctor(redis_cluster.url)  # type: ignore[attr-defined]
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert len({line["subject"] for line in lines if line["check"] == "round-trip"}) == 3
    assert {line["status"] for line in lines if line["check"] in {"round-trip", "role"}} == {"ok"}, text
    assert code == 0, text
