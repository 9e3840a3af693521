"""Dead letters over HTTP: for admins only, with errors that say what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
import redis

from eventbus.backends.redis.dead_letter_client import DeadLetterFilter, DeadLetters
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.settings import BusSettings
from tests.webui_adapter.events import Promise
from tests.webui_adapter.gateways import ORIGIN, GatewayProcess, eventually, page, token

Ask = Callable[..., httpx.Response]


@pytest.fixture
def ask(gateway: GatewayProcess) -> Ask:
    def send(method: str, path: str = "", *, scope: Any = "other eventbus:admin", **options: Any) -> httpx.Response:
        claims = {} if scope is None else {"scope": scope}
        headers = {"Authorization": f"Bearer {token('boss', **claims)}"}
        url = f"{gateway.http}{gateway.prefix}/admin/dead-letters{path}"
        return httpx.request(method, url, headers=headers, timeout=10, **options)

    return send


@pytest.fixture
async def dead_id(
    gateway: GatewayProcess, redis_url: str, key_prefix: str, user: str, publish: Callable[..., None]
) -> str:
    """A dead letter of the user: pushed out of a full list, as a worker with a small one does it."""
    from eventbus import Bus  # noqa: PLC0415 - only here

    bus = Bus(BusSettings(redis_url=redis_url, key_prefix=key_prefix, pending_limit=1))
    receipt = bus.emit(user, "op", Promise(n=1))
    bus.emit(user, "op", Promise(n=2))
    assert bus.flush(5)
    bus.close()
    return receipt.id


def test_listed_and_shown(ask: Ask, user: str, dead_id: str) -> None:
    answer = ask("GET", params={"channel": user, "reason": "full"})
    assert answer.status_code == 200
    (found,) = answer.json()["letters"]
    assert (found["id"], found["type"], found["channel"]) == (dead_id, "gw.promise", f"user:{user}")
    assert '"n":1' in ask("GET", f"/user:{user}/{dead_id}").json()["content"]
    assert ask("GET", f"/user:{user}/unknown").status_code == 404


async def test_requeued_it_reaches_the_page(gateway: GatewayProcess, ask: Ask, user: str, dead_id: str) -> None:
    async with page(gateway, user) as client:
        assert client.page.got("gw.promise") == [2]
        answer = ask("POST", "/requeue", json={"ids": [dead_id], "channel": user})
        assert answer.json() == {"requeued": 1, "unreadable": 0, "left": 0}
        await client.until(lambda page: page.got("gw.promise") == [2, 1])
        assert ask("POST", "/requeue", json={"ids": [dead_id], "channel": user}).json()["requeued"] == 0
        await client.request(do="ack", ids=client.page.unacked)
    await eventually(
        lambda: '"audit": {"action": "dead_letters.requeue", "by": "boss", "via": "http"' in gateway.log.read_text(),
        "who did it, in the log",
    )


def test_purged(ask: Ask, user: str, dead_id: str, redis_url: str, key_prefix: str) -> None:
    assert ask("POST", "/purge", json={"channel": user}).json() == {"purged": 1}
    dead = DeadLetters(BusSettings(redis_url=redis_url, key_prefix=key_prefix))
    assert dead.find(DeadLetterFilter(channel=user)) == []
    assert redis.Redis.from_url(redis_url).hlen(Keys(key_prefix).pending(f"user:{user}")[0]) == 1, "what waits stays"


@pytest.mark.parametrize("scope", [None, "eventbus:administrator", ["other"], 7])
def test_not_without_the_scope(ask: Ask, scope: object) -> None:
    answer = ask("GET", scope=scope)
    assert answer.status_code == 403
    assert "eventbus:admin" in answer.json()["message"]


def test_not_without_a_token(gateway: GatewayProcess) -> None:
    assert gateway.get(f"{gateway.prefix}/admin/dead-letters").status_code == 401
    answer = gateway.get(f"{gateway.prefix}/admin/dead-letters", headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403


def test_not_from_another_origin_with_a_cookie(gateway: GatewayProcess) -> None:
    url = f"{gateway.http}{gateway.prefix}/admin/dead-letters/purge"
    cookies = {"access_token": token("boss", scope="eventbus:admin")}
    assert httpx.post(url, json={"all": True, "channel": "nobody"}, cookies=cookies).status_code == 403
    headers = {"Origin": ORIGIN}
    assert httpx.post(url, json={"channel": "nobody"}, cookies=cookies, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "all"),
        ({"limit": 5}, "all"),
        ({"channel": "a b"}, "channel"),
        ({"channel": "nobody", "limit": 100_000}, "limit"),
        ({"unknown": 1}, "unknown"),
        ({"ids": ["x"] * 1001}, "ids"),
        ({"all": False}, "all"),
        ([], "body"),
    ],
)
def test_a_mistake_names_its_field(gateway: GatewayProcess, ask: Ask, body: object, field: str) -> None:
    before = refusals(gateway, "bad_request")
    answer = ask("POST", "/purge", json=body)
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (400, "bad_request", field)
    assert field in answer.json()["message"] or field == "all"
    assert refusals(gateway, "bad_request") == before + 1


def refusals(gateway: GatewayProcess, reason: str) -> float:
    return gateway.metrics().get(f'eventbus_refused_total{{reason="{reason}"}}', 0.0)


def test_a_mistake_says_the_limit(ask: Ask) -> None:
    assert ask("GET", params={"limit": "1001"}).json()["limit"] == 1000
    assert ask("GET", params={"older_than": "-1"}).json()["limit"] == 0
    assert ask("POST", "/purge", json={"ids": ["x"] * 1001}).json()["limit"] == 1000
    assert ask("GET", params={"channel": "a" * 129}).json()["limit"] == 128


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 50_000,
        b'{"older_than":NaN,"channel":"nobody"}',
        b'{"older_than":1e999,"channel":"nobody"}',
        b'{"ids":["\\ud800"]}',
        b'{"ids":"\\ud800"}',
        b'{"\\ud800":1}',
        b'{"limit":' + b"9" * 5000 + b"}",
    ],
    ids=lambda body: repr(body[:20]),
)
def test_a_body_that_no_client_of_good_will_sends(ask: Ask, body: bytes) -> None:
    assert ask("POST", "/purge", content=body[:60_000]).status_code == 400


def test_a_body_is_read_for_admins_only_and_within_the_limit(gateway: GatewayProcess, ask: Ask) -> None:
    url = f"{gateway.http}{gateway.prefix}/admin/dead-letters/purge"
    assert httpx.post(url, content=b"{", timeout=10).status_code == 401
    assert ask("POST", "/purge", content=b"{", scope=None).status_code == 403
    answer = ask("POST", "/purge", json={"ids": ["x" * 100_000]})
    assert (answer.status_code, answer.json()["code"], answer.json()["limit"]) == (413, "too_large", 65_536)
