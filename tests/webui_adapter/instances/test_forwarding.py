"""Commands of event streams that reach another instance: real processes, one Redis."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from eventbus import Bus, BusSettings
from eventbus.backends.redis.scripts.keys import Keys
from tests.conftest import RedisServer
from tests.webui_adapter.events import Note
from tests.webui_adapter.gateways import GatewayProcess, eventually, running, token
from tests.webui_adapter.transports.test_sse_commands import Stream, streaming
from webui_adapter.instances.forwarding import life_of


@pytest.fixture
def others(tmp_path: Path, redis_url: str, key_prefix: str) -> Iterator[list[GatewayProcess]]:
    """Two more instances with the Redis of the shared gateway."""
    settings = {"authoriser": "tests.webui_adapter.authoriser:may_read", "forward_timeout": 1.0}
    with (
        running(tmp_path, redis_url, key_prefix, instance="second", **settings) as second,
        running(tmp_path, redis_url, key_prefix, instance="third", **settings) as third,
    ):
        yield [second, third]


async def post(gateway: GatewayProcess, session: str, user: str, command: object) -> httpx.Response:
    content = command if isinstance(command, bytes) else json.dumps(command).encode()
    async with httpx.AsyncClient(timeout=10) as client:
        return await client.post(
            f"{gateway.http}{gateway.prefix}/sessions/{session}/commands",
            content=content,
            headers={"Authorization": f"Bearer {token(user)}"},
        )


def session_of(stream: Stream) -> str:
    return str(stream.page.data_of("bus.hello")[0]["session"])


async def test_a_command_at_any_instance(
    gateway: GatewayProcess, others: list[GatewayProcess], user: str, collection: str, bus: Bus
) -> None:
    """As behind a load balancer without stickiness: 24 commands in turn, each is accepted and carried out once."""
    instances = [gateway, *others]
    async with streaming(gateway, user, member_of=[collection]) as stream:
        subscribe = {"do": "subscribe", "topic": f"collection:{collection}:*", "ref": "s"}
        assert (await post(others[0], session_of(stream), user, subscribe)).status_code == 202
        await stream.until(lambda p: any(d.get("ref") == "s" for d in p.data_of("bus.subscribed")), "the answer")
        bus.broadcast(collection, Note(n=1))
        bus.flush(10)
        await stream.until(lambda p: p.got("gw.note") == [1], "the event")
        for n in range(24):
            response = await post(instances[n % 3], session_of(stream), user, {"do": "ping", "ref": n})
            assert (response.status_code, response.content) == (202, b"")
        await stream.until(lambda p: len([d for d in p.data_of("bus.ok") if d["ref"] != "s"]) == 24, "the answers")
        assert sorted(d["ref"] for d in stream.page.data_of("bus.ok")) == list(range(24))


async def test_a_refusal_is_that_of_the_session(
    gateway: GatewayProcess, others: list[GatewayProcess], user: str
) -> None:
    other = others[0]
    async with streaming(gateway, user) as stream:
        session = session_of(stream)
        for command in ({"do": "dance", "ref": 7}, b'{"do":"dance","ref":"\\ud800"}', b"\xff{}", {"do": "subscribe"}):
            here, there = await post(gateway, session, user, command), await post(other, session, user, command)
            assert there.status_code == here.status_code == 400
            assert there.json() == here.json()
        await stream.until(lambda p: len(p.data_of("bus.error")) == 8, "both refusals of each, without another event")
        assert (await post(other, session, user, b"x" * 70_000)).status_code == 413
        assert (await post(other, session, "somebody-else", {"do": "ping"})).status_code == 404
        assert (await post(other, f"{life_of(session)}.unknown", user, {"do": "ping"})).status_code == 404
        response = await post(other, "no-such-session", user, {"do": "ping"})
        assert (response.status_code, response.json()["data"]["code"]) == (404, "not_found")


async def test_the_instance_is_gone(gateway: GatewayProcess, others: list[GatewayProcess], user: str) -> None:
    async with streaming(others[0], user) as stream:
        session = session_of(stream)
        others[0].process.kill()
        await eventually(lambda: others[0].process.poll() is not None, "the kill")
        response = await post(gateway, session, user, {"do": "ping"})
    assert (response.status_code, response.json()["data"]["code"]) == (404, "not_found")


async def test_a_command_for_a_paused_instance_harms_nothing(
    gateway: GatewayProcess, others: list[GatewayProcess], user: str
) -> None:
    async with streaming(others[0], user) as stream:
        others[0].signal(signal.SIGSTOP)
        response = await post(others[1], session_of(stream), user, {"do": "ping", "ref": "late"})
        assert (response.status_code, response.json()["data"]["code"]) == (503, "unavailable")
        assert response.headers["Retry-After"] == "1"
        others[0].signal(signal.SIGCONT)
        # It is carried out late: the client may repeat every command.
        await stream.until(lambda p: {"ref": "late"} in p.data_of("bus.ok"), "the answer")
        assert (await post(others[1], session_of(stream), user, {"do": "ping"})).status_code == 202


async def test_redis_is_down(tmp_path: Path, own_redis: RedisServer, user: str) -> None:
    with (
        running(tmp_path, own_redis.url, "fw", instance="a") as one,
        running(tmp_path, own_redis.url, "fw", instance="b") as two,
    ):
        async with streaming(one, user) as stream:
            own_redis.kill()
            await eventually(lambda: two.get("/readyz").status_code == 503, "the loss")
            assert (await post(two, session_of(stream), user, {"do": "ping"})).status_code == 503
            assert (await post(one, session_of(stream), user, {"do": "ping"})).status_code == 202


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"[]",
        b"7",
        b'{"id":"a"}',
        b'{"id":"a","sender":"b","sent":"c","answer":false}',
        b'{"id":[],"sender":"b","sent":1,"answer":true}',
        b'{"id":"a","sender":"b","sent":1,"answer":false,"more":1}',
    ],
)
async def test_a_message_that_cannot_be_read_is_counted(
    gateway: GatewayProcess, bus_settings: BusSettings, key_prefix: str, redis_server: RedisServer, user: str, payload
) -> None:
    async with streaming(gateway, user) as stream:
        before = _count(gateway, "unreadable") + _count(gateway, "late")
        redis_server.client.publish(Keys(key_prefix).control(life_of(session_of(stream))), payload)
        await eventually(lambda: _count(gateway, "unreadable") + _count(gateway, "late") == before + 1, "the count")
        assert (await post(gateway, session_of(stream), user, {"do": "ping"})).status_code == 202


async def test_too_many_wait(tmp_path: Path, redis_url: str, key_prefix: str, user: str) -> None:
    with (
        running(tmp_path, redis_url, key_prefix, instance="a") as one,
        running(tmp_path, redis_url, key_prefix, instance="b", forwarded_commands=1, forward_timeout=2.0) as two,
    ):
        async with streaming(one, user) as stream:
            one.signal(signal.SIGSTOP)
            responses = await asyncio.gather(*(post(two, session_of(stream), user, {"do": "ping"}) for _ in range(2)))
            one.signal(signal.SIGCONT)
    assert sorted(response.json()["data"]["code"] for response in responses) == ["busy", "unavailable"]


def _count(gateway: GatewayProcess, how: str) -> float:
    return gateway.metrics().get(f'eventbus_forwarded_commands_total{{how="{how}"}}', 0)
