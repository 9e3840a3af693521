"""Health, readiness, metrics and logs, as an operator reads them."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect

from eventbus import Bus, BusSettings
from tests.conftest import wait_until
from tests.webui_adapter.events import Note
from tests.webui_adapter.gateways import SECRET, Client, GatewayProcess, RawWebSocket, page, running, token
from tests.webui_adapter.page import Page
from webui_adapter import GatewaySettings, create_app
from webui_adapter.errors import NotConfigured


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[GatewayProcess]:
    """A gateway of which everything is counted here, with the keys to itself."""
    with running(
        tmp_path_factory.mktemp("counted"), redis_url, "counted", log_level="debug", prefix="", max_message_size=2048
    ) as process:
        yield process


@pytest.fixture
def worker(redis_url: str) -> Iterator[Bus]:
    bus = Bus(BusSettings(redis_url=redis_url, key_prefix="counted"))
    yield bus
    bus.close()


def buckets(gateway: GatewayProcess) -> list[tuple[float, float]]:
    rows = [
        (float(match[1]), value)
        for name, value in gateway.metrics().items()
        if (match := re.fullmatch(r'eventbus_delivery_latency_seconds_bucket\{le="(.+)"\}', name))
    ]
    return sorted(rows)


def test_health_and_readiness(counted: GatewayProcess) -> None:
    response = counted.get("/healthz")
    assert (response.status_code, response.text) == (200, "ok")
    response = counted.get("/readyz")
    assert (response.status_code, response.json()) == (200, {"ready": True, "reason": None})
    assert "server" not in response.headers


async def test_every_delivery_is_in_the_counters_and_in_the_histogram(
    counted: GatewayProcess, worker: Bus, user: str
) -> None:
    before, rows_before = counted.metrics(), buckets(counted)
    async with page(counted, user) as one, page(counted, user) as two, page(counted, user) as narrow:
        assert counted.metrics()["eventbus_connections"] == 3
        assert counted.metrics()["eventbus_channels"] == 2
        await narrow.request(do="unsubscribe", topic=f"user:{user}:*")
        await narrow.request(do="subscribe", topic=f"user:{user}:operation:odd")
        for n in range(20):
            worker.emit(user, "odd" if n % 2 else "even", Note(n=n))
        assert worker.flush(10)
        for client in (one, two):
            await client.until(lambda p: len(p.events) == 20)
        await narrow.until(lambda p: len(p.events) == 10)
        after, rows = counted.metrics(), buckets(counted)

        def grown(name: str) -> float:
            return after[name] - before.get(name, 0)

        assert grown("eventbus_events_total") == 20
        assert grown("eventbus_deliveries_total") == 50
        assert grown("eventbus_delivery_latency_seconds_count") == 50
        assert 0 < grown("eventbus_delivery_latency_seconds_sum") < 50 * 5
        assert rows[-1][1] - rows_before[-1][1] == 50
        assert [bound for bound, _ in rows] == [
            0.001,
            0.0025,
            0.005,
            0.01,
            0.02,
            0.05,
            0.1,
            0.2,
            0.5,
            1,
            2,
            5,
            10,
            float("inf"),
        ]
        counts = [value for _, value in rows]
        assert counts == sorted(counts)
        assert grown("eventbus_connects_total") == 3
        assert grown('eventbus_resumes_total{how="snapshot"}') == 7
        assert after["eventbus_ready"] == 1
        assert after["eventbus_outbox_depth"] == 0
    wait_until(lambda: counted.metrics()["eventbus_connections"] == 0, "all to be gone")
    assert counted.metrics()["eventbus_channels"] == 0


async def test_what_goes_wrong_is_counted_by_reason(counted: GatewayProcess, worker: Bus, user: str) -> None:
    before = counted.metrics()
    async with page(counted, user, f"user:{user}=abc.3") as client:
        await client.request(do="subscribe", topic="user:other:*")
        await client.request(do="dance")
        await client.request(do="subscribe", topic="collection:7:*")
        worker.emit(user, "op", Note(n=1, pad="x" * 3000))
        worker.emit(user, "op", Note(n=2))
        worker.flush(10)
        await client.until(lambda p: p.got("gw.note") == [2])
    counted.get("/sse", headers={"Authorization": "Bearer x"})
    counted.get("/sse", headers={"Origin": "https://evil.example"})
    async with connect(
        counted.ws, additional_headers={"Authorization": f"Bearer {token(user, seconds=-9)}"}
    ) as connection:
        await Client(connection, Page()).closed()
    after = counted.metrics()
    for name in (
        'eventbus_refused_total{reason="forbidden"}',
        'eventbus_refused_total{reason="bad_command"}',
        'eventbus_refused_total{reason="origin"}',
        'eventbus_auth_failures_total{reason="refused"}',
        'eventbus_auth_failures_total{reason="expired"}',
        'eventbus_gaps_total{reason="epoch"}',
        'eventbus_resumes_total{how="gap"}',
        'eventbus_dropped_total{reason="too_large"}',
        'eventbus_disconnects_total{code="4100"}',
    ):
        assert after[name] - before.get(name, 0) >= 1, name


def test_the_exposition_is_well_formed_and_names_no_user(counted: GatewayProcess, user: str) -> None:
    response = counted.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    for name in (
        "eventbus_connections",
        "eventbus_deliveries",
        "eventbus_events",
        "eventbus_dropped",
        "eventbus_disconnects",
        "eventbus_outbox_depth",
        "eventbus_slow_sessions",
        "eventbus_delivery_latency_seconds",
        "eventbus_holes",
        "eventbus_redis_lost",
        "eventbus_degraded",
        "eventbus_probe_failures",
        "eventbus_quiet_missed",
        "process_resident_memory_bytes",
    ):
        assert name in families, name
        assert families[name].documentation
    labels = {label for family in families.values() for sample in family.samples for label in sample.labels}
    assert labels <= {"reason", "code", "how", "le", "version", "implementation", "major", "minor", "patchlevel"}


def test_the_log_is_json_without_tokens_and_without_control_characters(counted: GatewayProcess, user: str) -> None:
    good = token(user)
    secrets = [good, "c2VjcmV0LXRva2Vu", *good.split(".")[1:]]
    nasty = "%0a%0d%1b[31mred%00%7f%e2%80%a8"
    for carrier in (
        lambda: httpx.get(f"{counted.sse}?token={good}&x={nasty}"),
        lambda: httpx.get(f"{counted.sse}?access_token=c2VjcmV0LXRva2Vu"),
        lambda: httpx.get(f"{counted.http}/{nasty}?token={good}", headers={"Authorization": "Bearer c2VjcmV0LXRva2Vu"}),
        lambda: httpx.get(counted.sse, headers={"Authorization": f"Bearer {good}x", "Cookie": f"access_token={good}"}),
    ):
        carrier()
    for header, query in (
        (f"Sec-WebSocket-Protocol: eventbus.v1, access_token.{good}\r\n", f"?token={good}"),
        (
            f"Authorization: Bearer {good}\r\nOrigin: https://\x1b[31mevil\r\n",
            f"?access_token=c2VjcmV0LXRva2Vu&topic={nasty}",
        ),
        ("", f"?cursor={nasty}&token={good}"),
        ("Authorization: Bearer c2VjcmV0LXRva2Vu\r\n", "?token=c2VjcmV0LXRva2Vu"),
    ):
        raw = RawWebSocket(counted, header, query)
        raw.head()
        with contextlib.suppress(OSError):
            raw.send(1, json.dumps({"do": "auth", "token": good, "ref": "\x1b[31m\n"}).encode())
            raw.send(1, b'{"do":"subscribe","topic":"\\u001b[31m\\nred"}')
        raw.close()
    wait_until(lambda: counted.metrics()["eventbus_connections"] == 0, "all to be gone")
    text = counted.log.read_bytes()
    assert b"WebSocket" in text, "connections are logged"
    assert b"[token]" in text
    for secret in secrets:
        assert secret.encode() not in text
    for line in text.splitlines():
        entry = json.loads(line)
        assert {"event", "level", "logger", "timestamp"} <= entry.keys()
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f-\xff]", text), "only line feeds between the lines"


def test_settings_that_do_not_work_are_one_line(tmp_path: Path, redis_url: str) -> None:
    gateways = [
        (GatewayProcess(tmp_path, redis_url, "x", jwt_secret=None).start(), "WEBUI_JWT_SECRET"),
        (GatewayProcess(tmp_path, redis_url, "x", authoriser="no.such:thing").start(), "WEBUI_AUTHORISER"),
    ]
    for gateway, said in gateways:
        assert gateway.wait(40) == 2
        text = gateway.log.read_text()
        assert text.startswith("gateway: "), text
        assert said in text
        assert text.count("\n") == 1, text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"jwt_algorithm": "ES256", "jwt_key_file": "/no/such/file"}, "/no/such/file"),
        ({"jwt_algorithm": "ES256", "jwt_key_file": __file__}, "cannot use WEBUI_JWT_KEY_FILE as a key for ES256"),
        ({"authoriser": "tests.webui_adapter.authoriser:nothing"}, "WEBUI_AUTHORISER"),
        ({"authoriser": "tests.webui_adapter.authoriser:__doc__"}, "not callable"),
        ({"authoriser": ""}, "WEBUI_AUTHORISER"),
        ({"events": "no.such.module"}, "WEBUI_EVENTS"),
    ],
)
def test_what_settings_name_must_be_there(settings: dict[str, str], said: str) -> None:
    with pytest.raises((NotConfigured, OSError), match=said):
        create_app(GatewaySettings(**{"jwt_secret": SECRET, **settings}))


@pytest.mark.parametrize("url", ["foo://x", "localhost:6379", "redis://:s3cret/phrase@host:6379/0", ""])
def test_an_address_that_is_none_is_said_in_a_line_without_its_password(tmp_path: Path, url: str) -> None:
    gateway = GatewayProcess(tmp_path, url)
    gateway.start()
    assert gateway.wait(40) == 2
    (line,) = gateway.log.read_text().splitlines()
    assert line.startswith("gateway: EVENTBUS_REDIS_URL: ")
    assert "s3cret" not in line
    assert "phrase" not in line


def test_a_port_that_is_taken_is_said_and_the_end(tmp_path: Path, redis_url: str, counted: GatewayProcess) -> None:
    second = GatewayProcess(tmp_path, redis_url, "x", port=counted.port)
    second.start()
    wait_until(lambda: "address already in use" in second.log.read_text(), "the reason to be said")
    assert second.wait(10) != 0
    assert "Traceback" not in second.log.read_text()
