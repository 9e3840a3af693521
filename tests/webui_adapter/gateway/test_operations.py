"""Operations listed and cancelled by a page, over SSE and over HTTP: only by their owner or an admin."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from eventbus import Bus, BusSettings
from eventbus.backends.redis.operation_client import Operations
from eventbus.operations.events import OperationRef
from eventbus.operations.state import TaskTransition
from tests.webui_adapter.gateways import ORIGIN, GatewayProcess, eventually, page, running, token
from tests.webui_adapter.transports.curl import curl, settled

Start = Callable[..., str]
ADMIN = {"scope": "eventbus:admin"}


def started(bus: Bus, user: str, op: str, *, runs: bool = True) -> None:
    """An operation of two tasks as workers report it: one done, one that runs or waits."""
    ref = OperationRef(user, op)
    bus.record_transition(ref, TaskTransition("plan", planned=2), label="Index")
    for task in "ab":
        bus.record_transition(ref, TaskTransition("published", task, 1), label="Index")
    bus.record_transition(ref, TaskTransition("done", "a", 1), label="Index")
    if runs:
        about = '"task":"t-b","name":"shop.read","retries":0'
        bus.record_transition(ref, TaskTransition("started", "b", 1, lease=60_000, task_json=about), label="Index")
    assert bus.flush(10)


@pytest.fixture
def start(bus: Bus, user: str) -> Start:
    def begin(op: str = "9", *, runs: bool = True) -> str:
        started(bus, user, op, runs=runs)
        return op

    return begin


@pytest.fixture
def ask(gateway: GatewayProcess, user: str) -> Callable[..., httpx.Response]:
    """A script of the user."""

    def send(method: str, path: str = "", *, who: str = user, **options: Any) -> httpx.Response:
        claims = options.pop("claims", {})
        headers = {"Authorization": f"Bearer {token(who, **claims)}", **options.pop("headers", {})}
        url = f"{gateway.http}{gateway.prefix}/operations{path}"
        return httpx.request(method, url, headers=headers, timeout=10, **options)

    return send


Ask = Callable[..., httpx.Response]


# --- a page ----------------------------------------------------------------------------------------------------


async def test_a_page_sees_what_there_is(gateway: GatewayProcess, user: str, start: Start) -> None:
    start("first", runs=False)
    start("second")
    async with page(gateway, user) as client:
        found = (await client.request(do="operations"))["data"]["operations"]
        assert [(info["id"], info["state"]) for info in found] == [("second", "running"), ("first", "running")]
        assert "tasks" not in found[0]
        info = (await client.request(do="operation", operation="second"))["data"]["operation"]
        assert info["tasks"] == [{"task": "t-b", "name": "shop.read", "retries": 0, "lost": False}]
        assert {name: info[name] for name in ("user", "label", "done", "failed", "total", "ended", "cancelled")} == {
            "user": user,
            "label": "Index",
            "done": 1,
            "failed": 0,
            "total": 2,
            "ended": 0,
            "cancelled": 0,
        }
        assert 0 < info["queued"] <= info["started"] <= info["heard"]
        assert (await client.request(do="operations", state=["lost"]))["data"]["operations"] == []
        assert len((await client.request(do="operations", limit=1))["data"]["operations"]) == 1


async def test_a_page_stops_an_operation_and_all_pages_hear_of_it(
    gateway: GatewayProcess, user: str, start: Start, redis_url: str, key_prefix: str
) -> None:
    start()
    async with page(gateway, user) as client, page(gateway, user) as other:
        info = (await client.request(do="cancel", operation="9"))["data"]["operation"]
        assert info["state"] == "cancelling"
        assert info["cancelled"] > 0
        for each in (client, other):
            await each.until(lambda page: "operation.cancelling" in [event["type"] for event in page.events])
        again = (await client.request(do="cancel", operation="9"))["data"]["operation"]
        assert again["cancelled"] == info["cancelled"], "twice is as good as once"
    with Operations(BusSettings(redis_url=redis_url, key_prefix=key_prefix)) as operations:
        assert (user, "9") in [ref for ref, _ in operations.cancelled(0)], "workers learn of it"


async def test_an_idle_operation_is_cancelled_immediately(gateway: GatewayProcess, user: str, start: Start) -> None:
    start(runs=False)
    async with page(gateway, user) as client:
        assert (await client.request(do="cancel", operation="9"))["data"]["operation"]["state"] == "cancelled"


async def test_users_see_and_cancel_only_their_own_operations(gateway: GatewayProcess, user: str, start: Start) -> None:
    start()
    async with page(gateway, "mallory") as client:
        for do in ("cancel", "operation", "operations"):
            answer = await client.request(do=do, operation="9", user=user)
            assert (answer["data"]["code"], answer["data"]["field"]) == ("forbidden", "user")
        answer = await client.request(do="cancel", operation="9")
        assert (answer["data"]["code"], answer["data"]["field"]) == ("unknown_operation", "operation")
    async with page(gateway, user) as client:
        shown = await client.request(do="operation", operation="9", user=user)
        assert shown["data"]["operation"]["state"] == "running"


async def test_an_admin_names_the_user(gateway: GatewayProcess, user: str, start: Start) -> None:
    start()
    async with page(gateway, "boss", **ADMIN) as client:
        assert (await client.request(do="cancel", operation="9"))["data"]["code"] == "unknown_operation"
        (info,) = (await client.request(do="operations", user=user))["data"]["operations"]
        assert info["user"] == user
        answer = await client.request(do="cancel", operation="9", user=user)
        assert answer["data"]["operation"]["state"] == "cancelling"


def test_over_server_sent_events(gateway: GatewayProcess, user: str, start: Start) -> None:
    start()
    with curl(gateway, user) as stream:
        stream.until(settled(user), "the greeting")
        session = stream.got("bus.hello")[0]["data"]["session"]
        url = f"{gateway.http}{gateway.prefix}/sessions/{session}/commands"
        headers = {"Authorization": f"Bearer {token(user)}"}
        answer = httpx.post(url, headers=headers, json={"do": "cancel", "operation": "9", "ref": 5}, timeout=10)
        assert answer.status_code == 202
        stream.until(lambda stream: stream.got("bus.ok"), "the answer")
        (said,) = (event["data"] for event in stream.got("bus.ok"))
        assert (said["ref"], said["operation"]["state"]) == (5, "cancelling")


# --- a script --------------------------------------------------------------------------------------------------


def test_a_script_lists_shows_and_stops(ask: Ask, user: str, start: Start) -> None:
    start("first", runs=False)
    start("second")
    assert [info["id"] for info in ask("GET").json()["operations"]] == ["second", "first"]
    assert [info["id"] for info in ask("GET", params={"limit": 1}).json()["operations"]] == ["second"]
    shown = ask("GET", "/second")
    assert shown.headers["cache-control"] == "no-store"
    assert shown.json()["operation"]["tasks"][0]["name"] == "shop.read"
    assert ask("POST", "/first/cancel").json()["operation"]["state"] == "cancelled"
    states = {"state": ["cancelled", "lost"]}
    assert [info["id"] for info in ask("GET", params=states).json()["operations"]] == ["first"]


def test_any_instance_serves(brisk: GatewayProcess, user: str, start: Start) -> None:
    start()
    url = f"{brisk.http}{brisk.prefix}/operations/9/cancel"
    answer = httpx.post(url, headers={"Authorization": f"Bearer {token(user)}"}, timeout=10)
    assert answer.json()["operation"]["state"] == "cancelling"


def test_whose_it_is_over_http(ask: Ask, user: str, start: Start) -> None:
    start()
    for method, path in (("GET", ""), ("GET", "/9"), ("POST", "/9/cancel")):
        answer = ask(method, path, who="mallory", params={"user": user})
        assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (403, "forbidden", "user")
    answer = ask("POST", "/9/cancel", who="mallory")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_operation")
    assert ask("GET", "/9").json()["operation"]["state"] == "running"
    answer = ask("POST", "/9/cancel", who="boss", claims=ADMIN, params={"user": user})
    assert answer.json()["operation"]["state"] == "cancelling"


@pytest.mark.parametrize(
    ("path", "params", "field", "limit"),
    [
        ("", {"limit": "0"}, "limit", 200),
        ("", {"limit": "201"}, "limit", 200),
        ("", {"limit": "-1"}, "limit", 200),
        ("", {"limit": "many"}, "limit", 200),
        ("", {"limit": "9" * 5000}, "limit", 200),
        ("", {"limit": ""}, "limit", 200),
        ("", {"state": "asleep"}, "state", 7),
        ("", {"state": ["queued"] * 8}, "state", 7),
        ("", {"user": "a b"}, "user", None),
        ("/a%20b", {}, "operation", None),
        ("/a:b", {}, "operation", None),
    ],
)
def test_a_mistake_names_its_field(
    ask: Ask, path: str, params: dict[str, object], field: str, limit: int | None
) -> None:
    answer = ask("GET", path, params=params)
    assert answer.status_code == 400
    assert (answer.json()["code"], answer.json()["field"], answer.json().get("limit")) == ("bad_command", field, limit)


def test_tokens_and_origins_as_everywhere(gateway: GatewayProcess, ask: Ask, user: str, start: Start) -> None:
    start()
    url = f"{gateway.http}{gateway.prefix}/operations"
    assert httpx.get(url, timeout=10).status_code == 401
    assert httpx.get(f"{url}/9", headers={"Authorization": "Bearer no"}, timeout=10).status_code == 401
    assert ask("GET", headers={"Origin": "https://evil.example"}).status_code == 403
    cookies = {"access_token": token(user)}
    assert httpx.post(f"{url}/9/cancel", cookies=cookies, timeout=10).status_code == 403, "without an Origin"
    answer = httpx.post(f"{url}/9/cancel", cookies=cookies, headers={"Origin": ORIGIN}, timeout=10)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    for path in ("", "/9", "/9/cancel"):
        answer = httpx.request("OPTIONS", f"{url}{path}", headers={"Origin": ORIGIN}, timeout=10)
        assert answer.status_code == 204
        assert "authorization" in answer.headers["access-control-allow-headers"]
    missing = ask("GET", "/never", headers={"Origin": ORIGIN})
    assert missing.headers["access-control-allow-origin"] == ORIGIN, "a page may read why"


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory, redis_url: str, key_prefix: str) -> Iterator[GatewayProcess]:
    """One that allows little."""
    folder = tmp_path_factory.mktemp("slow")
    with running(folder, redis_url, key_prefix, user_rate_limit=2, instance="slow") as process:
        yield process


def test_a_user_has_one_rate_over_http(slow: GatewayProcess, user: str) -> None:
    with httpx.Client(timeout=10) as script:
        headers = {"Authorization": f"Bearer {token(user)}"}
        url = f"{slow.http}{slow.prefix}/operations"
        answers = [script.get(url, headers=headers) for _ in range(20)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        body = refused[0].json()
        assert (body["code"], body["scope"], body["limit"]) == ("rate_limited", "user", 2)
        assert int(refused[0].headers["retry-after"]) >= 1
        other = {"Authorization": f"Bearer {token(user + 'x')}"}
        assert script.get(url, headers=other).status_code == 200, "another's is another's"


async def test_a_session_and_a_script_share_the_users_rate(slow: GatewayProcess, user: str) -> None:
    async with page(slow, user) as client:
        headers = {"Authorization": f"Bearer {token(user)}"}
        async with httpx.AsyncClient(timeout=10) as script:
            url = f"{slow.http}{slow.prefix}/operations"
            codes = [(await script.get(url, headers=headers)).status_code for _ in range(20)]
        assert 429 in codes
        answer = await client.request(do="operations")
        assert (answer["data"].get("code"), answer["data"].get("scope")) == ("rate_limited", "user")


async def test_counted(gateway: GatewayProcess, ask: Ask, user: str, start: Start) -> None:
    start()

    def counts() -> list[float]:
        names = [f'eventbus_operation_requests_total{{what="{what}"}}' for what in ("list", "show", "cancel")]
        names += ["eventbus_cancels_total", 'eventbus_refused_total{reason="unknown_operation"}']
        metrics = gateway.metrics()
        return [metrics.get(name, 0) for name in names]

    before = counts()
    ask("GET")
    ask("GET", "/9")
    ask("POST", "/9/cancel")
    ask("POST", "/never/cancel")
    await eventually(lambda: [b - a for a, b in zip(before, counts(), strict=True)] == [1, 1, 2, 1, 1], "the counts")


def test_the_answer_is_as_the_protocol_shows_it(ask: Ask, start: Start) -> None:
    start()
    info = ask("GET", "/9").json()["operation"]
    names = ["user", "id", "label", "state", "done", "failed", "total"]
    assert list(info) == [*names, "queued", "started", "heard", "ended", "cancelled", "tasks"]
    assert json.dumps(info).isascii()
