"""The roles of Redis' users: the whole product runs as them, and each can do nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import redis

from eventbus import Bus, BusSettings, Operations
from eventbus.backends.redis.acl.denials import denials
from eventbus.backends.redis.acl.roles import ROLES
from eventbus.backends.redis.dead_letter_client import DeadLetterFilter, DeadLetters
from eventbus.errors import NotPermitted
from eventbus.testing.redis_server import server_binary
from tests.conftest import wait_until
from tests.servers.acl import RoleServer
from tests.servers.cluster import RedisCluster
from tests.webui_adapter.events import Note, Progress, Promise
from tests.webui_adapter.gateways import GatewayProcess, page, token
from tests.webui_adapter.page import Page
from tests.worker_adapter.conftest import running

ADMIN = {"scope": "eventbus:admin"}


@pytest.fixture(scope="module", params=["own", "system"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoleServer]:
    """The tests' server, and Debian's."""
    program = server_binary() if request.param == "own" else "redis-server"
    one = RoleServer(tmp_path_factory.mktemp("roles"), program=program)
    one.start()
    yield one
    one.kill()


@pytest.fixture
def emitter(server: RoleServer) -> Iterator[Bus]:
    bus = Bus(BusSettings(redis_url=server.url_of("emitter")))
    yield bus
    bus.close()


@pytest.fixture
def gateway(server: RoleServer, tmp_path: Path) -> Iterator[GatewayProcess]:
    one = GatewayProcess(
        tmp_path, server.url_of("gateway"), WEBUI_BROKER_URL=server.url_of("broker", 1), sweep_interval=0.2
    )
    one.start()
    try:
        yield one.wait_ready()
    finally:
        one.stop()


@pytest.fixture
def worker(server: RoleServer, tmp_path: Path) -> Iterator[None]:
    log = tmp_path / "worker"
    environment = {
        **os.environ,
        "TESTS_BROKER": server.url_of("broker", 1),
        "TESTS_BACKEND": server.url_of("broker", 2),
        "EVENTBUS_REDIS_URL": server.url_of("emitter"),
        "EVENTBUS_WORKER_REPORT_INTERVAL": "0.1",
        "EVENTBUS_WORKER_LEASE": "1",
        "C_FORCE_ROOT": "1",
    }
    app = ["-m", "celery", "-A", "tests.worker_adapter.app", "worker", "-c", "2", "-l", "INFO"]
    with running([sys.executable, *app], log, env=environment) as process:
        wait_until(lambda: b" ready." in log.read_bytes() or process.poll() is not None, f"the worker, see {log}", 60)
        assert process.poll() is None, log.read_text()
        yield


def start(server: RoleServer, *shapes: str) -> list[list[str]]:
    """Start operations in a separate process, as an application does. Return id and cursor of each."""
    lines = "".join(
        f"""
operation = start_operation({shape}, user="ann", label="Roles")
print(operation.id, operation.cursor)"""
        for shape in shapes
    )
    script = f"""
from celery import chain, chord, group
from tests.worker_adapter.app import app, bar, collect, fail, spread, step
from worker_adapter import start_operation
{lines}
"""
    environment = {
        **os.environ,
        "TESTS_BROKER": server.url_of("broker", 1),
        "TESTS_BACKEND": server.url_of("broker", 2),
        "EVENTBUS_REDIS_URL": server.url_of("emitter"),
    }
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    return [line.split() for line in done.stdout.splitlines()]


def eventbus(server: RoleServer, *arguments: str, role: str = "admin") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "EVENTBUS_REDIS_URL": server.url_of(role)}
    command = [sys.executable, "-m", "eventbus", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


async def test_the_product_needs_no_other_right(
    server: RoleServer, gateway: GatewayProcess, worker: None, emitter: Bus
) -> None:
    shapes = {
        "chain(step.si(name='one'), chord([step.si(), step.si()], collect.s()))": "operation.succeeded",
        "group(fail.si(), spread.si())": "operation.failed",
        "bar.si(n=50)": "operation.succeeded",
        "group(step.si().set(countdown=60) for _ in range(3))": "operation.cancelled",
    }
    started = start(server, *shapes)
    async with page(gateway, "ann", started[0][1]) as client:
        answer = await client.request(do="cancel", operation=started[-1][0])
        assert answer["type"] == "bus.ok", answer
        for (op, _), end in zip(started, shapes.values(), strict=True):
            await client.until(lambda page, op=op, end=end: ended(page, op, end), f"{op} to end", seconds=30)
        emitter.emit("ann", "op", Progress(done=1))
        receipt = emitter.emit("ann", "op", Promise(n=1))
        assert emitter.flush(10)
        await client.until(lambda page: page.got("gw.promise") == [1])
        await client.request(do="ack", ids=client.page.unacked)
    assert await receipt.delivered(timeout=10)
    with Operations(BusSettings(redis_url=server.url_of("emitter"))) as operations:
        assert {info.id for info in operations.of("ann")} == {op for op, _ in started}
    assert server.denied() == []


def ended(page: Page, op: str, end: str) -> bool:
    return any(event["type"] == end and event["topic"].endswith(op) for event in page.events)


def test_dead_letters_are_an_admins(server: RoleServer, gateway: GatewayProcess) -> None:
    bus = Bus(BusSettings(redis_url=server.url_of("emitter"), pending_limit=1))
    dead = [bus.emit("bob", "op", Promise(n=n)) for n in range(4)][:3]
    assert bus.flush(10)
    bus.close()
    assert json.loads(eventbus(server, "dead-letters", "count", "--user", "bob", "--json").stdout) == {"full": 3}
    assert "requeued 1" in eventbus(server, "dead-letters", "requeue", dead[0].id).stdout
    assert "purged 1" in eventbus(server, "dead-letters", "purge", dead[1].id, "--yes").stdout
    headers = {"Authorization": f"Bearer {token('boss', **ADMIN)}"}
    url = f"{gateway.http}{gateway.prefix}/admin/dead-letters"
    answer = httpx.post(f"{url}/requeue", json={"channel": "bob"}, headers=headers, timeout=10)
    assert answer.json()["requeued"] >= 1
    assert server.denied() == []


READS_OF_EVENTS: list[tuple[str, ...]] = [
    ("XRANGE", "eb:{user:ann}:log", "-", "+"),
    ("SUBSCRIBE", "eb:{user:ann}:live"),
    ("PSUBSCRIBE", "*"),
]
OF_NO_ROLE: list[tuple[str, ...]] = [
    ("FLUSHALL",),
    ("KEYS", "*"),
    ("CONFIG", "GET", "*"),
    ("CONFIG", "SET", "appendonly", "yes"),
    ("ACL", "SETUSER", "eve", "on"),
    ("ACL", "LIST"),
    ("SHUTDOWN",),
    ("MONITOR",),
    ("CLIENT", "KILL", "ID", "1"),
    ("REPLICAOF", "NO", "ONE"),
    ("SCRIPT", "FLUSH"),
    ("GET", "another:key"),
    ("SET", "another:key", "x"),
    ("PUBLISH", "another", "x"),
]
REFUSED: list[tuple[str, tuple[str, ...]]] = [
    *((role, command) for role in ("emitter", "gateway", "admin", "metrics") for command in OF_NO_ROLE),
    *(("emitter", command) for command in READS_OF_EVENTS),
    *(("metrics", command) for command in READS_OF_EVENTS),
    ("emitter", ("SET", "eb:sweeper", "x")),
    ("emitter", ("XADD", "eb:audit", "*", "a", "b")),
    ("metrics", ("HGETALL", "eb:{user:ann}:snapshot")),
    ("metrics", ("HSET", "eb:letters:totals", "dead", "0")),
    ("metrics", ("EVAL", "return 1", "0")),
    ("metrics", ("PUBLISH", "eb:{user:ann}:live", "x")),
    ("broker", ("HGETALL", "eb:{user:ann}:snapshot")),
    ("broker", ("PUBLISH", "eb:{user:ann}:live", "x")),
    ("broker", ("FLUSHALL",)),
]


@pytest.mark.parametrize(("role", "command"), REFUSED, ids=lambda value: value if isinstance(value, str) else value[0])
def test_a_role_can_do_nothing_else(server: RoleServer, role: str, command: tuple[str, ...]) -> None:
    with server.client_of(role) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command)
    with server.client as client:
        client.acl_log_reset()


def test_the_default_user_is_off(server: RoleServer) -> None:
    with redis.Redis(port=server.port) as client, pytest.raises(redis.exceptions.AuthenticationError):
        client.ping()


def test_metrics_are_counts(server: RoleServer) -> None:
    with server.client_of("metrics") as client:
        assert "maxmemory_policy" in client.info("memory")
        assert client.zcard("eb:letters") >= 0
        assert client.hgetall("eb:letters:totals") is not None


# --- a missing right is a named, counted error ------------------------------------------------------------------


@pytest.fixture
def without(server: RoleServer) -> Iterator[Callable[..., str]]:
    """Returns the address of an emitter without some rights."""
    with contextlib.ExitStack() as stack:

        def make(*rules: str, role: str = "emitter") -> str:
            with server.client as client:
                given = next(line for line in client.acl_list() if f"user eventbus-{role} " in line).split()[2:]
                rights = [rule for rule in given if not rule.startswith("#")]
                client.execute_command("ACL", "SETUSER", "less", "reset", *rights, ">less", *rules)
            stack.callback(server.client.acl_log_reset)
            return f"redis://less:less@127.0.0.1:{server.port}/0"

        yield make


def counted(right: str) -> int:
    """How many were refused. Servers before Redis 7.2 do not name a command within a script."""
    return denials().get(right, 0) + denials().get("command", 0)


@pytest.mark.parametrize(
    ("rules", "right"),
    [
        (("-evalsha",), "evalsha"),
        (("-xadd",), "xadd"),  # within a script
        (("resetkeys", "~eb:{timeline*}*", "~eb:gateways"), "key"),
        (("resetchannels",), "channel"),  # within a script
    ],
    ids=["command", "command in a script", "key", "channel in a script"],
)
def test_a_missing_right_keeps_the_event(
    without: Callable[..., str], rules: tuple[str, ...], right: str, caplog: pytest.LogCaptureFixture
) -> None:
    url, before = without(*rules), counted(right)
    bus = Bus(BusSettings(redis_url=url, retry_max=0.1))
    receipt = bus.emit("cat", "op", Note(n=1))
    wait_until(lambda: counted(right) > before, "the refused command to be counted")
    # The script had stored the event before the server refused to publish it: then the log knows its id.
    assert receipt.status in {"waiting", "duplicate"}
    assert not bus.outbox.dropped
    wait_until(lambda: "Redis does not permit it" in caplog.text, "a line in the log")
    without()
    wait_until(lambda: receipt.status in {"published", "duplicate"}, "the event to be taken with the right")
    bus.close()


def test_a_call_raises_a_named_error(without: Callable[..., str]) -> None:
    with Operations(BusSettings(redis_url=without("-evalsha"))) as operations, pytest.raises(NotPermitted) as caught:
        operations.of("cat")
    assert caught.value.right == "evalsha"
    assert "eventbus acl" in str(caught.value)


def test_a_gateway_says_which_right_is_missing(server: RoleServer, without: Callable[..., str], tmp_path: Path) -> None:
    one = GatewayProcess(tmp_path, without("-publish", role="gateway"))
    one.start()
    try:
        wait_until(lambda: "publish" in _reason(one), "the reason", 60)
        assert one.metrics()['eventbus_redis_denied_total{right="publish"}'] > 0
    finally:
        one.stop()


def _reason(gateway: GatewayProcess) -> str:
    try:
        return str(gateway.get("/readyz").json()["reason"])
    except httpx.HTTPError:
        return ""


# --- in a cluster -----------------------------------------------------------------------------------------------


@pytest.fixture
def cluster(redis_cluster: RedisCluster) -> Iterator[Callable[[str], str]]:
    """Returns the address of a cluster for a role's user."""
    for role in ROLES:
        redis_cluster.execute("ACL", "SETUSER", role.user, "reset", "on", ">secret", *role.rules("eb", cluster=True))
    redis_cluster.execute("ACL", "LOG", "RESET")
    yield lambda role: redis_cluster.url.replace("://", f"://eventbus-{role}:secret@")
    for role in ROLES:
        redis_cluster.execute("ACL", "DELUSER", role.user)


async def test_in_a_cluster_too(cluster: Callable[[str], str], redis_cluster: RedisCluster, tmp_path: Path) -> None:
    """Emit, durably, with an acknowledgement; list; requeue as an admin; read as a page."""
    with GatewayProcess(tmp_path, cluster("gateway")) as gateway:
        bus = Bus(BusSettings(redis_url=cluster("emitter"), pending_limit=1))
        async with page(gateway, "eve") as client:
            for n in range(3):
                bus.emit("eve", "op", Note(n=n))
            dead = bus.emit("eve", "op", Promise(n=1))
            bus.emit("eve", "op", Promise(n=2))
            assert bus.flush(20)
            await client.until(lambda page: page.got("gw.note") == [0, 1, 2])
            await client.until(lambda page: page.got("gw.promise") == [1, 2])
            await client.request(do="ack", ids=client.page.unacked)
        with Operations(BusSettings(redis_url=cluster("emitter"))) as operations:
            assert operations.of("eve") == []
        bus.close()
        durable = Bus(BusSettings(redis_url=cluster("emitter"), durable="replicas"))
        durable.emit("eve", "op", Note(n=3))
        assert durable.flush(20)
        durable.close()
        dead_letters = DeadLetters(BusSettings(redis_url=cluster("admin")))
        assert [one.id for one in dead_letters.find(DeadLetterFilter(channel="eve"))] in ([], [dead.id])
        dead_letters.close()
    log = [entry for entries in redis_cluster.execute("ACL", "LOG", "20") for entry in entries]
    found = [dict(zip(entry[::2], entry[1::2], strict=True)) for entry in log]
    denied = {(one[b"username"], one[b"reason"], one[b"object"]) for one in found}
    assert not {one for one in denied if b"setinfo" not in one[2]}
