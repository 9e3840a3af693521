"""Tickets: a token buys one connection for a client that can send no header. Real gateways."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest
import redis
from websockets.asyncio.client import connect

from eventbus import AsyncSessions, BusSettings
from eventbus.backends.redis.scripts.keys import Keys
from tests.conftest import RedisServer
from tests.webui_adapter.gateways import ORIGIN, Client, GatewayProcess, eventually, running, token
from tests.webui_adapter.page import Page
from webui_adapter.access.credentials.tickets import digest, read_principal, write_principal
from webui_adapter.access.principal import Principal


def issue(gateway: GatewayProcess, user: str, **claims: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token(user, **claims)}"}
    return httpx.post(f"{gateway.http}{gateway.prefix}/tickets", headers=headers, timeout=10)


def ticket(gateway: GatewayProcess, user: str, **claims: Any) -> str:
    answer = issue(gateway, user, **claims)
    assert answer.status_code == 201, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    return str(answer.json()["ticket"])


async def greeted(gateway: GatewayProcess, query: str) -> str | int:
    """The user whom the gateway greets, or the close code."""
    async with connect(f"{gateway.ws}?{query}") as connection:
        client = Client(connection, Page())
        try:
            await client.until(lambda page: page.data_of("bus.hello"))
        except Exception:  # noqa: BLE001 - the connection has ended
            return await client.closed()
        return str(client.page.data_of("bus.hello")[0]["user"])


async def test_it_opens_one_websocket(gateway: GatewayProcess, brisk: GatewayProcess, user: str) -> None:
    own = ticket(gateway, user)
    assert await greeted(brisk, f"ticket={own}&cursor=user:{user}=0") == user, "at any instance"
    for again in (own, "x", "x" * 5_000):
        assert await greeted(gateway, f"ticket={again}") == 4100


def test_it_opens_one_event_stream_and_nothing_else(gateway: GatewayProcess, user: str) -> None:
    own = ticket(gateway, user)
    assert gateway.get(f"{gateway.prefix}/operations?ticket={own}").status_code == 401
    with httpx.stream("GET", f"{gateway.sse}?ticket={own}", headers={"Origin": ORIGIN}, timeout=10) as stream:
        assert stream.status_code == 200
        assert f'"user":"{user}"' in next(stream.iter_text())
    refused = gateway.get(f"{gateway.prefix}/sse?ticket={own}")
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")


def test_it_needs_a_token_and_not_a_ticket(gateway: GatewayProcess, user: str) -> None:
    url = f"{gateway.http}{gateway.prefix}/tickets"
    assert httpx.post(url).status_code == 401
    assert httpx.post(f"{url}?ticket={ticket(gateway, user)}").status_code == 401


async def test_a_revocation_counts(gateway: GatewayProcess, user: str, redis_url: str, key_prefix: str) -> None:
    own = ticket(gateway, user, jti=f"{user}-1")
    async with AsyncSessions(BusSettings(redis_url=redis_url, key_prefix=key_prefix)) as sessions:
        await sessions.revoke_token(f"{user}-1")
    await eventually(lambda: issue(gateway, user, jti=f"{user}-1").status_code == 401, "the revocation")
    assert await greeted(gateway, f"ticket={own}") == 4102


def test_their_number_and_life_are_bounded(redis_url: str, tmp_path: Any, user: str) -> None:
    with running(tmp_path, redis_url, f"few-{user}", ticket_ttl=1, max_tickets_per_user=2) as gateway:
        own = ticket(gateway, user)
        assert issue(gateway, user).status_code == 201
        refused = issue(gateway, user)
        assert (refused.status_code, refused.json()["code"], refused.json()["limit"]) == (429, "rate_limited", 2)
        keys = Keys(f"few-{user}")
        with redis.Redis.from_url(redis_url) as client:
            assert 0 < client.pttl(keys.ticket(digest(own))) <= 1_000
            assert own.encode() not in b" ".join(client.keys(f"few-{user}*")), "Redis does not know the ticket"
            deadline = time.monotonic() + 15
            while client.exists(keys.ticket(digest(own)), keys.tickets(user)):
                assert time.monotonic() < deadline
        assert gateway.get(f"{gateway.prefix}/sse?ticket={own}").status_code == 401
        assert issue(gateway, user).status_code == 201


async def test_without_redis_it_is_not_the_clients_fault(own_redis: RedisServer, tmp_path: Any, user: str) -> None:
    with running(tmp_path, own_redis.url) as gateway:
        own = ticket(gateway, user)
        own_redis.kill()
        await eventually(lambda: gateway.get("/readyz").status_code == 503, "the loss")
        assert issue(gateway, user).status_code == 503
        assert gateway.get(f"{gateway.prefix}/sse?ticket={own}").status_code == 503
        assert await greeted(gateway, f"ticket={own}") == 4004


@pytest.mark.parametrize(
    "principal",
    [Principal("ann"), Principal("ann", 5.0, frozenset({"7"}), {"a": [1]}, frozenset({"s"}), 4.0, "j")],
)
def test_it_stands_for_the_whole_principal(principal: Principal) -> None:
    assert read_principal(write_principal(principal)) == principal


def test_a_claim_that_json_cannot_express() -> None:
    assert read_principal(write_principal(Principal("ann", claims={"a": object}))).claims["a"].__class__ is str
