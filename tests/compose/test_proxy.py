"""HAProxy with the configuration of ``compose/``, in front of two real gateways and a real Redis."""

from __future__ import annotations

import json
import signal
import subprocess
from contextlib import AsyncExitStack

import pytest

from tests.compose.events import Counted, emit, numbers
from tests.compose.page import COOKIE
from tests.compose.parts import get, raw, token
from tests.conftest import wait_until


async def test_events_come_over_websocket(whole, user):
    async with whole.page(user) as page:
        await page.until(lambda: len(page.hows) == 2, "both channels")
        emit(whole, user, range(20))
        await page.until(lambda: len(page.events) == 20, "twenty events")
    assert numbers(page) == list(range(20))
    assert page.instances[0] in whole.gateways


class Curl:
    """An event stream, read as ``curl -N`` reads it."""

    def __init__(self, whole, user, *arguments) -> None:
        self.url = f"{whole.balancer.url}/eventbus"
        self.common = ["curl", "--silent", "--noproxy", "*", "-H", f"Authorization: Bearer {token(user)}"]
        self._command = [*self.common, "-N", *arguments, f"{self.url}/sse"]
        self.events: list[tuple[str, dict]] = []

    def __enter__(self):
        self.process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def until(self, type_) -> dict:
        """Read until an event of this type."""
        event = ""
        for line in self.process.stdout:
            name, _, value = line.rstrip("\n").partition(": ")
            if name == "event":
                event = value
            elif name == "data":
                self.events.append((event, json.loads(value)))
                if event == type_:
                    return self.events[-1][1]
        pytest.fail(f"the stream has ended before {type_}: {self.events}")

    def post(self, session, cookie) -> int:
        """Return the status of a command for the session, from a browser with this cookie."""
        command = [
            *self.common,
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-b",
            f"{COOKIE}={cookie}",
            "-d",
            '{"do":"ping"}',
        ]
        done = subprocess.run([*command, f"{self.url}/sessions/{session}/commands"], capture_output=True, check=True)
        return int(done.stdout)


def test_events_come_over_sse_one_by_one_and_its_commands_find_the_session(whole, user):
    with Curl(whole, user) as curl:
        hello = curl.until("bus.hello")["data"]
        for _ in range(2):
            curl.until("bus.subscribed")
        # The test reads each event before it emits the next: no part waits for more.
        for n in range(5):
            emit(whole, user, [n])
            assert curl.until("compose.counted")["data"] == {"n": n}
        assert curl.post(hello["session"], hello["instance"]) == 202
        # Without the cookie, a command may reach the other gateway, which forwards it.
        assert curl.post(hello["session"], whole.other(hello["instance"])) == 202


def test_a_stream_sets_the_cookie_for_its_commands(whole, user, tmp_path):
    headers = tmp_path / "headers"
    with Curl(whole, user, "-D", str(headers)) as curl:
        instance = curl.until("bus.hello")["data"]["instance"]
        [cookie] = [line for line in headers.read_text().splitlines() if line.lower().startswith("set-cookie")]
    assert cookie.split(": ")[1] == f"{COOKIE}={instance}; path=/; HttpOnly; SameSite=Lax"


def test_a_closed_stream_ends_immediately(whole, user):
    # Not at the next comment, 30 s later: a page that reloads would soon have too many connections.
    with Curl(whole, user) as curl:
        for _ in range(2):
            curl.until("bus.position")
        emit(whole, user, [1])
        curl.until("compose.counted")
        # Without another event, no write shows HAProxy that the browser has gone.
    wait_until(lambda: set(whole.balancer.sessions().values()) == {0}, "the stream's end to arrive", seconds=5)


async def test_the_cookie_leads_back_to_the_same_gateway(whole, user):
    for name in whole.gateways:
        # Several connections: without the cookie leastconn would spread them.
        async with AsyncExitStack() as stack:
            for _ in range(4):
                page = await stack.enter_async_context(whole.page(user, cookie=name))
                await page.hello()
                assert page.instances == [name]


async def test_without_a_cookie_the_emptier_gateway_is_next(whole, user):
    wait_until(lambda: set(whole.balancer.sessions().values()) == {0}, "earlier connections to end")
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(6):
            page = await stack.enter_async_context(whole.page(user))
            await page.hello()
            assert page.cookie == page.instances[0]
            found += page.instances
    assert sorted(found) == ["gateway-1"] * 3 + ["gateway-2"] * 3


PRIVATE = [
    "/metrics", "/metrics/", "//metrics", "/METRICS", "/%6Detrics", "/metrics?x=1", "/readyz", "/read%79z", "/healthz",
    "/stats", "/stats;csv", "/flower/", "/flower/api/workers",
]  # fmt: skip


@pytest.mark.parametrize("path", PRIVATE)
def test_operators_paths_are_not_public(whole, path):
    # Also with the full address, as a client of a proxy would send it, and with another Host.
    for target, host in ((path, "localhost"), (f"http://gateway{path}", "gateway"), (path, "127.0.0.1:8405")):
        request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        answer = raw(whole.balancer.port, request.encode())
        assert answer.startswith(b"HTTP/1.1 404 "), answer[:200]
    assert not [seen for seen, _ in whole.site.seen if seen == path and seen != "/healthz"]


@pytest.mark.parametrize(
    "path", ["/eventbus/../metrics", "/eventbus/%2e%2e/metrics", "/eventbus/metrics", "/eventbus//metrics"]
)
def test_the_gateways_prefix_does_not_bypass_it(whole, path):
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answer = raw(whole.balancer.port, request.encode())
    assert answer.startswith(b"HTTP/1.1 404 "), answer[:200]


def test_operators_paths_are_on_the_internal_port(whole):
    for gateway in whole.gateways.values():
        assert get(f"http://{gateway.address}/metrics")[0] == 200
    status, text = get(f"{whole.balancer.internal}/metrics")
    assert status == 200
    assert 'haproxy_server_status{proxy="gateways",server="gateway-1",state="UP"} 1' in text
    assert get(f"{whole.balancer.internal}/stats")[0] == 200
    assert get(f"{whole.balancer.internal}/healthz")[0] == 200


def test_the_rest_goes_to_the_site_and_the_prefix_to_the_gateways(whole):
    assert get(f"{whole.balancer.url}/a/page?q=1") == (200, "the site: /a/page?q=1")
    assert get(f"{whole.balancer.url}/eventbusiness") == (200, "the site: /eventbusiness")
    assert get(f"{whole.balancer.url}/metricsystem") == (200, "the site: /metricsystem")
    assert "no such file" in get(f"{whole.balancer.url}/eventbus/nothing")[1]


LIES = {
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "elsewhere.example",
    "X-Forwarded-Prefix": "/x",
    "Forwarded": "for=203.0.113.9",
    "X-Real-IP": "203.0.113.9",
}


@pytest.mark.parametrize("path", ["/page", "/eventbus/client.js"])
def test_forwarded_headers_of_a_client_are_replaced(balancer, site, path):
    front = balancer()
    assert get(f"{front.url}{path}", {**LIES, "Cookie": f"{COOKIE}=gateway-2; mine=1"})[0] == 200
    headers = site.headers_of(path)
    assert headers["x-forwarded-for"] == ["127.0.0.1"]
    assert headers["x-forwarded-proto"] == ["http"]
    assert headers["x-forwarded-host"] == [f"127.0.0.1:{front.port}"]
    assert not {"x-forwarded-prefix", "forwarded", "x-real-ip"} & set(headers)
    if path.startswith("/eventbus"):
        assert headers["cookie"] == ["mine=1"], "the balancer's cookie stays with the balancer"


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
async def test_a_gateway_that_ends_in_the_middle_loses_no_event(whole, user, sent):
    async with whole.page(user) as page:
        await page.until(lambda: len(page.hows) == 2, "both channels")
        emit(whole, user, range(200))
        await page.until(lambda: len(page.events) > 50, "the first events")
        [first] = page.instances
        assert page.cookie == first
        try:
            # No flush: when the gateway dies, some events are in flight and some are not published yet.
            for n in range(200, 400):
                whole.bus.emit(user, "9", Counted(n=n))
            whole.gateways[first].process.send_signal(sent)
            # Before a health check has failed, and although the cookie names the dead gateway.
            cookie = {"Cookie": f"{COOKIE}={first}"}
            assert get(f"{whole.balancer.url}/eventbus/client.js", cookie)[0] == 200
            emit(whole, user, range(400, 500))
            await page.until(lambda: len(page.instances) == 2, "the other gateway's hello")
            emit(whole, user, range(500, 600))
            await page.until(lambda: numbers(page)[-1] == 599 and len(page.hows) >= 4, "the last event, both channels")
        finally:
            wait_until(lambda: whole.gateways[first].process.poll() is not None, f"{first} to end")
            wait_until(lambda: whole.balancer.statuses()[first] == "DOWN", "the health check to fail")
            whole.gateways[first].start()
            wait_until(lambda: whole.balancer.statuses()[first] == "UP", f"{first} to be back", seconds=30)
    assert numbers(page) == list(range(600))
    assert page.instances == [first, whole.other(first)]
    assert page.cookie == whole.other(first), "the cookie now names the other gateway"
    assert set(page.hows[2:]) == {(f"user:{user}", "resumed"), ("system", "resumed")}


async def test_a_gateway_that_is_full_or_not_ready_gets_no_new_connections(uneven, own_redis, user):
    balancer = uneven.balancer

    async def comes_to(cookie) -> str:
        async with uneven.page(user, cookie) as page:
            await page.hello()
            assert page.cookie == page.instances[0]
            return page.instances[0]

    async with uneven.page(user, cookie="gateway-1") as first:
        await first.hello()
        assert first.instances == ["gateway-1"]
        # The full gateway answers 503, which only HAProxy receives.
        assert await comes_to("gateway-1") == "gateway-2"

        own_redis.kill()
        wait_until(lambda: balancer.statuses()["gateway-1"] == "DOWN", "gateway-1 to be out of rotation")
        assert {await comes_to(cookie) for cookie in (None, "gateway-1", None)} == {"gateway-2"}
        # Connected pages stay: the gateway sends them bus.degraded, and goes on when Redis is up again.
        assert balancer.sessions()["gateway-1"] == 1
        assert get(f"{balancer.internal}/healthz")[0] == 200
    own_redis.start()
    wait_until(lambda: balancer.statuses()["gateway-1"] == "UP", "gateway-1 to be back")
    assert await comes_to("gateway-1") == "gateway-1"


async def test_a_gateway_can_be_taken_out_by_hand(whole, user):
    async with whole.page(user, cookie="gateway-1") as old:
        await old.until(lambda: len(old.hows) == 2, "both channels")
        whole.balancer.command("set server gateways/gateway-1 state maint")
        try:
            assert whole.balancer.statuses()["gateway-1"] == "MAINT"
            async with whole.page(user, cookie="gateway-1") as page:
                await page.hello()
            assert page.instances == ["gateway-2"]
            emit(whole, user, [1])
            await old.until(lambda: old.events, "the event, on the old connection")
            assert old.instances == ["gateway-1"]
        finally:
            whole.balancer.command("set server gateways/gateway-1 state ready")
            wait_until(lambda: whole.balancer.statuses()["gateway-1"] == "UP", "gateway-1 to be back")
