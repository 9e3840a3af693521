"""Rights that are taken away: sessions end at all instances, and revoked tokens open none. Real gateways."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from eventbus import AsyncSessions, BusSettings, Sessions
from eventbus.testing import RedisServer
from tests.webui_adapter.gateways import Client, GatewayProcess, eventually, page, running, token
from tests.webui_adapter.page import Page
from tests.webui_adapter.redis_proxy import proxied
from tests.webui_adapter.transports.curl import curl, settled
from tests.webui_adapter.world import world


@pytest.fixture
async def sessions(redis_url: str, key_prefix: str) -> AsyncIterator[AsyncSessions]:
    async with AsyncSessions(BusSettings(redis_url=redis_url, key_prefix=key_prefix)) as client:
        yield client


async def close_of(gateway: GatewayProcess, own: str) -> tuple[int, str]:
    """How a connection with a token ends; a connection that stays is an error."""
    async with connect(gateway.ws, additional_headers={"Authorization": f"Bearer {own}"}) as connection:
        with pytest.raises(ConnectionClosed) as caught:
            [await connection.recv() for _ in range(100)]
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


async def accepted(gateway: GatewayProcess, own: str) -> bool:
    async with connect(gateway.ws, additional_headers={"Authorization": f"Bearer {own}"}) as connection:
        client = Client(connection, Page())
        await client.until(lambda p: p.data_of("bus.hello"))
        return (await client.request(do="ping"))["type"] == "bus.ok"


async def test_sessions_end_at_every_instance_and_for_one_user_only(
    gateway: GatewayProcess, brisk: GatewayProcess, user: str, sessions: AsyncSessions
) -> None:
    other = f"{user}-other"
    async with page(gateway, user) as here, page(brisk, user) as there, page(gateway, other) as bystander:
        with curl(brisk, user) as stream:
            stream.until(settled(user), "the histories")
            await sessions.end(user, "the account was closed")
            assert [await here.closed(), await there.closed()] == [4102, 4102]
            await eventually(stream.ended, "the end of the stream")
            assert stream.got("bus.close")[0]["data"] == {
                "code": 4102,
                "reason": "the session was ended: the account was closed",
            }
        assert (await bystander.request(do="ping"))["type"] == "bus.ok"
    assert await accepted(gateway, token(user)), "the tokens are still good"


async def test_a_user_with_revoked_tokens_needs_a_later_one(
    gateway: GatewayProcess, user: str, sessions: AsyncSessions
) -> None:
    now = int(time.time())
    old, undated, later = token(user, iat=now - 60), token(user), token(user, iat=now + 5)
    async with (
        page(gateway, user, iat=now - 60) as one,
        page(gateway, user) as another,
        page(gateway, user, iat=now + 5) as fresh,
    ):
        await sessions.revoke_tokens(user, reason="lost laptop")
        assert [await one.closed(), await another.closed()] == [4102, 4102]
        assert (await fresh.request(do="ping"))["type"] == "bus.ok"
        refused = await fresh.request(do="auth", token=old)
        assert (refused["data"]["code"], refused["type"]) == ("unauthenticated", "bus.error")
    for revoked in (old, undated):
        assert await close_of(gateway, revoked) == (4102, "the token was revoked; use a fresh one")
        headers = {"Authorization": f"Bearer {revoked}"}
        for path in ("/sse", "/operations"):
            answer = gateway.get(f"{gateway.prefix}{path}", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "revoked")
    assert await accepted(gateway, later)
    assert gateway.metrics()['eventbus_auth_failures_total{reason="revoked"}'] >= 7


async def test_one_token_by_its_id(gateway: GatewayProcess, user: str, sessions: AsyncSessions) -> None:
    leaked, other = f"{user}-1", f"{user}-2"
    async with page(gateway, user, jti=leaked) as one, page(gateway, user, jti=other) as two:
        await sessions.revoke_token(leaked)
        assert await one.closed() == 4102
        assert (await two.request(do="ping"))["type"] == "bus.ok"
    assert (await close_of(gateway, token(user, jti=leaked)))[0] == 4102
    assert await accepted(gateway, token(user, jti=other))


async def test_a_session_belongs_to_its_latest_token(
    gateway: GatewayProcess, user: str, sessions: AsyncSessions
) -> None:
    async with page(gateway, user, jti=f"{user}-1") as client:
        await client.request(do="auth", token=token(user, jti=f"{user}-2"))
        await sessions.revoke_token(f"{user}-1")
        await sessions.revoke_token(f"{user}-3")
        assert (await client.request(do="ping"))["type"] == "bus.ok"
        await sessions.revoke_token(f"{user}-2")
        assert await client.closed() == 4102


async def test_a_lost_announcement_is_harmless(redis_server: RedisServer, tmp_path: Path, user: str) -> None:
    with proxied(redis_server) as proxy, running(tmp_path, proxy.url, f"lost-{user}") as gateway:
        proxy.swallow = b"{revocations}"
        settings = BusSettings(redis_url=redis_server.url, key_prefix=f"lost-{user}")
        async with page(gateway, user) as client, AsyncSessions(settings) as own:
            await own.end(user)
            assert await client.closed() == 4102
            assert proxy.swallowed == 1


async def test_revoked_tokens_stay_so_after_a_restart_of_the_gateway(redis_url: str, tmp_path: Path, user: str) -> None:
    settings = BusSettings(redis_url=redis_url, key_prefix=f"again-{user}")
    old = token(user, iat=int(time.time()) - 60)
    with Sessions(settings) as own:
        own.revoke_tokens(user)
        own.end(user)
    with running(tmp_path, redis_url, settings.key_prefix) as gateway:
        await eventually(lambda: gateway.metrics()["eventbus_revocations_age_seconds"] >= 0, "the first reading")
        assert (await close_of(gateway, old))[0] == 4102
        assert await accepted(gateway, token(user, iat=int(time.time()) + 2))
        assert gateway.metrics()["eventbus_revocations"] == 1


async def test_without_redis_what_is_known_stays_in_force(own_redis: RedisServer, tmp_path: Path, user: str) -> None:
    settings = BusSettings(redis_url=own_redis.url)
    known, unknown = token(user, jti="known"), token(user, jti="unknown")
    with running(tmp_path, own_redis.url) as gateway:
        with Sessions(settings) as own:
            own.revoke_token("known")
        await eventually(lambda: gateway.metrics()["eventbus_revocations"] == 1, "the revocation")
        async with page(gateway, user, jti="unknown") as client:
            own_redis.kill()
            await client.until(lambda p: p.data_of("bus.degraded"))
            assert (await close_of(gateway, known))[0] == 4102
            own_redis.start()
            with Sessions(settings) as own:
                own.revoke_token("unknown")
            assert await client.closed() == 4102
        assert (await close_of(gateway, unknown))[0] == 4102


async def test_a_session_lasts_so_long_at_most() -> None:
    async with world(max_session_life=0.5) as own:
        line = own.connect()
        await own.settled(line)
        line.send("auth", token=token("ann", seconds=900))
        await eventually(lambda: line.closed == 4103, "the end of the session")
        (hello,) = line.page.data_of("bus.hello")
        (ok,) = line.page.data_of("bus.ok")
        assert abs(hello["expires"] - ok["expires"]) <= 1, "a fresh token does not prolong it"
        assert hello["expires"] / 1000 - time.time() < 1


# --- admins ------------------------------------------------------------------------------------------------------


@pytest.fixture
def ask(gateway: GatewayProcess) -> Callable[..., httpx.Response]:
    def send(method: str, path: str, *, scope: str = "eventbus:admin", **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token('boss', scope=scope)}"}
        return httpx.request(
            method, f"{gateway.http}{gateway.prefix}/admin{path}", headers=headers, timeout=10, **options
        )

    return send


async def test_an_admin_ends_and_revokes(
    gateway: GatewayProcess, brisk: GatewayProcess, user: str, ask: Callable[..., httpx.Response]
) -> None:
    old = token(user, iat=int(time.time()) - 60, jti=f"{user}-1")
    async with page(brisk, user) as client:
        answer = ask("POST", "/sessions/end", json={"user": user, "reason": "moved"})
        assert answer.status_code == 200
        assert answer.json().items() >= {"kind": "sessions", "subject": user, "by": "boss", "reason": "moved"}.items()
        assert await client.closed() == 4102
    assert await accepted(gateway, old)
    assert ask("POST", "/tokens/revoke", json={"jti": f"{user}-1"}).json()["kind"] == "token"
    assert (await close_of(gateway, old))[0] == 4102
    dated = ask("POST", "/tokens/revoke", json={"user": user, "issued_before": 2_000_000_000})
    assert dated.json()["issued_before"] == 2_000_000_000
    listed = ask("GET", "/revocations").json()["revocations"]
    assert [found["kind"] for found in listed if user in found["subject"]] == ["sessions", "token", "user"]
    await eventually(lambda: f"boss revoked sessions {user}: moved" in gateway.log.read_text(), "who did it")


@pytest.mark.parametrize(
    "body",
    [{}, {"user": "ann", "jti": "j"}, {"jti": "j", "issued_before": 5}, {"user": "a b"}, {"user": "ann", "x": 1}],
)
def test_a_request_that_says_nothing_clear(ask: Callable[..., httpx.Response], body: dict[str, object]) -> None:
    answer = ask("POST", "/tokens/revoke", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


def test_not_without_the_scope(ask: Callable[..., httpx.Response], user: str) -> None:
    for path, body in (("/sessions/end", {"user": user}), ("/tokens/revoke", {"user": user})):
        assert ask("POST", path, json=body, scope="other").status_code == 403
    assert ask("GET", "/revocations", scope="other").status_code == 403
