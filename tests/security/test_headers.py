"""Headers and answers that browsers rely on, and what an operator reads about a refused origin."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.security.ways import WAYS, serving
from tests.webui_adapter.gateways import ORIGIN, ROOT, GatewayProcess, RawWebSocket, token

EVIL = "https://evil.example"
CLIENT = ROOT / "webui_adapter" / "client" / "dist"


@pytest.fixture(scope="module", params=WAYS)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, redis_url: str
) -> Iterator[GatewayProcess]:
    folder: Path = tmp_path_factory.mktemp("headers")
    with serving(request.param, folder, redis_url, f"sec{uuid.uuid4().hex[:8]}", allowed_origins=ORIGIN) as process:
        yield process


def refused(gateway: GatewayProcess) -> float:
    return gateway.metrics().get('eventbus_refused_total{reason="origin"}', 0)


@pytest.mark.parametrize("path", ["/sse", "/operations", "/operations/1", "/operations/1/cancel"])
def test_a_preflight_of_a_foreign_origin_is_refused_with_the_setting_to_change(
    served: GatewayProcess, path: str
) -> None:
    asked = {"Origin": EVIL, "Access-Control-Request-Method": "GET"}
    before = refused(served)
    answer = httpx.options(f"{served.http}{served.prefix}{path}", headers=asked, timeout=10)
    assert answer.status_code == 403
    assert answer.json() == {
        "code": "origin_not_allowed",
        "message": f"origin {EVIL} may not connect: add it to WEBUI_ALLOWED_ORIGINS",
    }
    assert "access-control-allow-origin" not in answer.headers
    assert refused(served) == before + 1
    good = httpx.options(f"{served.http}{served.prefix}{path}", headers={**asked, "Origin": ORIGIN}, timeout=10)
    assert (good.status_code, good.headers["access-control-allow-origin"]) == (204, ORIGIN)


def test_every_refused_origin_is_in_the_log(served: GatewayProcess, user: str) -> None:
    bearer = {"Authorization": f"Bearer {token(user)}"}
    for number, path in enumerate(("/sse", "/operations", "/ws"), 1):
        origin = f"https://evil-{number}.example"
        if path == "/ws":
            raw = RawWebSocket(served, f"Origin: {origin}\r\n")
            assert raw.head().startswith("HTTP/1.1 403")
            raw.close()
        else:
            answer = httpx.get(f"{served.http}{served.prefix}{path}", headers={**bearer, "Origin": origin}, timeout=10)
            assert answer.status_code == 403
            assert f"origin {origin} may not connect: add it to WEBUI_ALLOWED_ORIGINS" in answer.json()["message"]
        log = served.log.read_text()
        assert log.count(f"origin {origin} may not connect: add it to WEBUI_ALLOWED_ORIGINS") == 1, path


def test_an_unknown_path_of_the_gateway_is_an_error_like_the_others(served: GatewayProcess) -> None:
    answer = served.get(f"{served.prefix}/nothing.js")
    assert (answer.status_code, answer.json()) == (404, {"code": "not_found", "message": "no such file"})
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("served", ["alone"], indirect=True)
def test_any_other_path_of_the_stand_alone_gateway_too(served: GatewayProcess) -> None:
    """In an application it is the application's."""
    for method, path, status, code in (
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/", 404, "not_found"),
        ("DELETE", f"{served.prefix}/sse", 405, "method_not_allowed"),
    ):
        answer = httpx.request(method, f"{served.http}{path}", timeout=10)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


def test_the_client_comes_from_memory_and_knows_no_ranges(served: GatewayProcess) -> None:
    path, content = f"{served.prefix}/client.js", (CLIENT / "client.js").read_bytes()
    ranges = ",".join(f"{n}-{n}" for n in range(1_000))
    whole = served.get(path, headers={"Range": f"bytes={ranges}"})
    assert (whole.status_code, whole.content) == (200, content)
    assert "accept-ranges" not in whole.headers
    assert whole.headers["content-type"].startswith("text/javascript")
    assert whole.headers["access-control-allow-origin"] == "*"
    again = served.get(path, headers={"If-None-Match": whole.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["cache-control"] == "no-cache"
    assert served.get(f"{served.prefix}/client.d.ts").headers["content-type"].startswith("text/plain")
