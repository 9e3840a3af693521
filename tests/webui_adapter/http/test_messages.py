"""Messages that a developer meets first name what to change."""

from __future__ import annotations

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.webui_adapter.gateways import SECRET, GatewayProcess, token
from webui_adapter import create_app, gateway_router
from webui_adapter.errors import NotConfigured

ELSEWHERE = "https://elsewhere.example"


async def test_a_refused_origin_names_itself_and_the_setting(gateway: GatewayProcess, user: str) -> None:
    headers = {"Origin": ELSEWHERE, "Authorization": f"Bearer {token(user)}"}
    async with httpx.AsyncClient(timeout=10) as client:
        answer = await client.get(gateway.sse, headers=headers)
    with pytest.raises(InvalidStatus) as refused:
        async with connect(gateway.ws, additional_headers=headers):
            pass
    assert answer.status_code == refused.value.response.status_code == 403
    for text in (answer.text, (refused.value.response.body or b"").decode()):
        assert ELSEWHERE in text
        assert "WEBUI_ALLOWED_ORIGINS" in text


async def test_a_cookie_without_an_origin_is_explained(gateway: GatewayProcess, user: str) -> None:
    cookies = {"access_token": token(user)}
    async with httpx.AsyncClient(timeout=10, cookies=cookies) as client:
        answer = await client.post(f"{gateway.http}{gateway.prefix}/operations/9/cancel")
    assert answer.status_code == 403
    assert "cookie" in answer.text


async def test_a_long_origin_is_cut(gateway: GatewayProcess, user: str) -> None:
    async with httpx.AsyncClient(timeout=10) as client:
        answer = await client.get(gateway.sse, headers={"Origin": "https://" + "x" * 5000})
    assert answer.status_code == 403
    assert len(answer.text) < 500


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("WEBUI_PORT", "eighty"),
        ("WEBUI_PREFIX", "no slash"),
        ("WEBUI_JWT_SECRET", "short"),
        ("WEBUI_BROKER_OPTIONS", "{"),
        ("EVENTBUS_ACK_ATTEMPTS", "0"),
        ("EVENTBUS_REDIS_URL", "localhost:6379"),
    ],
)
def test_a_wrong_setting_names_its_variable(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv("WEBUI_JWT_SECRET", SECRET)
    monkeypatch.setenv(variable, value)
    for make in (gateway_router, create_app):
        with pytest.raises(NotConfigured, match=variable) as failed:
            make()
        assert "\n" not in str(failed.value), "one line"
        assert SECRET not in str(failed.value)
