"""The HTTP API against its OpenAPI document: no error of the server, and only documented answers."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from eventbus import Bus, BusSettings
from eventbus.testing import RedisServer
from tests.docs.sources import ROOT
from tests.webui_adapter.events import Promise
from tests.webui_adapter.gateway.test_operations import started
from tests.webui_adapter.gateways import GatewayProcess, running, token

DOCUMENT = ROOT / "docs" / "reference" / "openapi.yaml"
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = 25
PREFIX = f"api{uuid.uuid4().hex[:8]}"

schema = schemathesis.openapi.from_path(DOCUMENT)


@pytest.fixture(scope="module")
def api(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway whose rates are high, with an operation and some dead letters."""
    bus = Bus(BusSettings(redis_url=redis_server.url, key_prefix=PREFIX, pending_limit=1))
    for n in range(5):
        bus.emit("boss", "9", Promise(n=n))
    started(bus, "boss", "9")
    bus.close()
    rates = {"user_rate_limit": 100_000, "instance_rate_limit": 100_000, "EVENTBUS_REQUEUE_RATE": 100_000}
    with running(tmp_path_factory.mktemp("api"), redis_server.url, PREFIX, **rates) as gateway:
        yield gateway


@schema.parametrize()
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@pytest.mark.parametrize("scope", ["eventbus:admin", "", None], ids=["admin", "user", "stranger"])
def test_answers_are_documented(case: schemathesis.Case, api: GatewayProcess, scope: str | None) -> None:
    """The document's requests and broken ones, sent by three kinds of people."""
    # A revocation of the tester's own tokens would end the test.
    headers = (
        {"Authorization": f"Bearer {token(f'boss-{uuid.uuid4().hex[:8]}', scope=scope)}"} if scope is not None else {}
    )
    case.headers.pop("Authorization", None)
    case.call_and_validate(base_url=api.http, headers=headers, checks=CHECKS, timeout=20)


def test_each_route_is_documented(api: GatewayProcess) -> None:
    """Each path of the reference is in the document, but for streams and client files."""
    page = (ROOT / "docs" / "reference" / "http-api.md").read_text()
    rows = [line.split("`")[1] for line in page.splitlines() if line.startswith(("| `GET ", "| `POST "))]
    paths = {row.split()[1].replace("{prefix}", "/eventbus") for row in rows}
    left_out = {"/eventbus/ws", "/eventbus/sse", "/eventbus/client.js"}
    assert paths - left_out == set(schema.raw_schema["paths"])
    assert httpx.get(f"{api.http}/healthz").text == "ok"
