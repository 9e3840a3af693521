"""Lost workers: the sweeping instance reports them in time, but not after an outage of Redis."""

from __future__ import annotations

import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from eventbus import Bus, BusSettings
from eventbus.backends.redis.operation_client import Operations
from eventbus.backends.redis.operation_store import RedisOperations
from eventbus.backends.redis.pending_store import RedisPendingStore
from eventbus.backends.redis.reader import RedisReader
from eventbus.operations.events import OperationRef
from eventbus.operations.state import TaskTransition
from eventbus.operations.store import OperationInfo
from tests.conftest import RedisServer, wait_until
from tests.webui_adapter.gateways import GatewayProcess, running, token
from tests.webui_adapter.parts import ManualClock
from webui_adapter.maintenance.lease_checker import LeaseChecker
from webui_adapter.maintenance.sweeper import Sweeper

QUICK = {"sweep_interval": 0.2, "lease_grace": 1.5, "probe_interval": 0.3}


class Worker:
    """A worker's reports of its tasks, and how it renews their leases."""

    def __init__(self, redis_url: str, key_prefix: str) -> None:
        self.settings = BusSettings(redis_url=redis_url, key_prefix=key_prefix, socket_timeout=0.7)
        self.bus = Bus(self.settings)

    def start(self, ref: OperationRef, *, lease: float, late: bool = False) -> None:
        about = '"task":"t-a","name":"shop.read","retries":0'
        self.bus.record_transition(ref, TaskTransition("plan", planned=1), label="Index")
        self.bus.record_transition(ref, TaskTransition("published", "a", 1), label="Index")
        self.bus.record_transition(
            ref,
            TaskTransition("started", "a", 1, lease=int(lease * 1000), acks_late=late, task_json=about),
            label="Index",
        )
        assert self.bus.flush(10)

    def renew(self, ref: OperationRef, lease: float) -> None:
        """Once; raises if Redis does not answer."""
        with Operations(self.settings) as operations:
            operations.renew({ref: ["a"]}, lease)

    def close(self) -> None:
        self.bus.close()


@pytest.fixture
def operations(redis_url: str, swept: str) -> Iterator[Callable[[str], OperationInfo]]:
    with Operations(BusSettings(redis_url=redis_url, key_prefix=swept)) as operations:

        def get(op: str) -> OperationInfo:
            info = operations.get("ann", op)
            assert info is not None
            return info

        yield get


@pytest.fixture(scope="module")
def swept() -> str:
    """A key prefix whose leases no other gateway checks."""
    return f"sw{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def sweeper(tmp_path_factory: pytest.TempPathFactory, redis_url: str, swept: str) -> Iterator[GatewayProcess]:
    with running(tmp_path_factory.mktemp("sweeper"), redis_url, swept, **QUICK) as process:
        yield process


@pytest.fixture
def worker(redis_url: str, swept: str) -> Iterator[Worker]:
    own = Worker(redis_url, swept)
    yield own
    own.close()


Look = Callable[[str], OperationInfo]


def test_a_lost_worker_is_reported(sweeper: GatewayProcess, worker: Worker, operations: Look) -> None:
    before = sweeper.metrics()
    worker.start(OperationRef("ann", "early"), lease=0.3)
    worker.start(OperationRef("ann", "late"), lease=0.3, late=True)
    wait_until(lambda: operations("early").state == "failed", "what will not come again to have failed")
    wait_until(lambda: operations("late").state == "lost", "what will come again to be lost")
    (task,) = operations("late").tasks
    assert (task.name, task.lost) == ("shop.read", True)

    def counted(name: str) -> float:
        return sweeper.metrics()[name] - before[name]

    wait_until(lambda: counted("eventbus_tasks_lost_total") == 2, "both tasks to be counted")
    assert counted("eventbus_operations_lost_total") == 1
    worker.start(OperationRef("ann", "late"), lease=60, late=True)
    assert operations("late").state == "running", "the message has come again"


def test_many_lost_workers(sweeper: GatewayProcess, worker: Worker, operations: Look) -> None:
    """More than are looked at in one question."""
    for n in range(130):
        about = '"task":"t-a","name":"shop.read","retries":0'
        worker.bus.record_transition(
            OperationRef("ann", f"many{n}"), TaskTransition("started", "a", lease=1, task_json=about)
        )
    assert worker.bus.flush(10)
    wait_until(lambda: all(operations(f"many{n}").state == "failed" for n in range(130)), "all to have failed")


def test_a_lease_that_cannot_be_checked_does_not_delay_the_others(
    sweeper: GatewayProcess, worker: Worker, operations: Look, redis_server: RedisServer, swept: str
) -> None:
    client, key = redis_server.client, f"{swept}:{{user:ann}}:operation:broken"
    client.set(key, "no hash", ex=60)
    client.zadd(f"{swept}:leases", {"user:ann broken": 1, "what is this": 1, "user:a:b 7": 1})
    worker.start(OperationRef("ann", "behind"), lease=0.3)
    wait_until(lambda: operations("behind").state == "failed", "the others to be looked at")
    wait_until(lambda: "cannot check the leases of user:ann broken" in sweeper.log.read_text(), "the log to say so")


def freeze(server: RedisServer, sweeper: GatewayProcess, seconds: float) -> None:
    """Redis answers no client, for longer than that, and until the gateway has noticed."""
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    end = time.monotonic() + seconds
    try:
        wait_until(
            lambda: "cannot sweep" in sweeper.log.read_text() and time.monotonic() > end, "the sweeper to notice"
        )
    finally:
        server.process.send_signal(signal.SIGCONT)


def turned(server: RedisServer, times: int) -> Callable[[], bool]:
    """Whether the sweeper has renewed its own lease so often from now on: all turns but the last one are over then."""
    lives = [10**9]
    grown: list[int] = []

    def look() -> bool:
        lives.append(server.client.pttl("eb:sweeper"))
        if lives[-1] > lives[-2]:
            grown.append(lives[-1])
        return len(grown) >= times

    return look


def test_after_an_outage_of_redis_workers_have_time_to_renew(tmp_path: Path, own_redis: RedisServer) -> None:
    """Two leases end while Redis is silent. One worker renews afterwards, and is not reported as lost."""
    alive, gone = OperationRef("ann", "alive"), OperationRef("ann", "gone")
    quick = {**QUICK, "lease_grace": 4}
    with running(tmp_path, own_redis.url, "eb", **quick) as sweeper:
        worker = Worker(own_redis.url, "eb")
        with Operations(worker.settings) as operations:
            # A sentinel, to know that the sweeper looks by now.
            worker.start(OperationRef("ann", "sentinel"), lease=0.1)
            wait_until(lambda: state(operations, "sentinel") == "failed", "the first grace to be over")
            for ref in (alive, gone):
                worker.start(ref, lease=1.5)
            freeze(own_redis, sweeper, 1.7)
            wait_until(lambda: redis_answers(operations), "Redis to answer again")
            wait_until(turned(own_redis, 3), "the sweeper to be at work again")
            assert [state(operations, ref.op) for ref in (alive, gone)] == ["running", "running"]
            worker.renew(alive, 60)
            wait_until(lambda: state(operations, "gone") == "failed", "the other one to be reported in the end")
            assert state(operations, "alive") == "running"
        worker.close()


class ManualServer(RedisOperations):
    """The operations in Redis, and a time of the server that a test moves."""

    clock = ManualClock()

    async def server_ms(self) -> int:
        return self.clock.server_ms()


async def test_the_next_sweeper_has_measured_the_grace_period_already(bus_settings: BusSettings) -> None:
    clock, counters = ManualServer.clock, Counter[str]()
    reader = RedisReader(bus_settings)
    pending_store, operations = RedisPendingStore(bus_settings, reader), ManualServer(bus_settings, reader)
    one, two = (
        Sweeper(pending_store, name, 5, 30, counters, LeaseChecker(operations, 30, 5, counters)) for name in "ab"
    )
    worker = Worker(bus_settings.redis_url, bus_settings.key_prefix)
    worker.start(OperationRef("ann", "9"), lease=0.001)
    worker.close()
    for _ in range(6):
        await one.run_once()
        await two.run_once()
        clock.at += 5
    assert (one.sweeping, two.sweeping, counters["lost.tasks"]) == (True, False, 0)
    await reader.execute("DEL", f"{bus_settings.key_prefix}:sweeper")
    await two.run_once()
    assert (two.sweeping, counters["lost.tasks"]) == (True, 1), "it could have renewed for 30 seconds"
    await one.run_once()
    assert not one.sweeping
    await reader.aclose()


def state(operations: Operations, op: str) -> str:
    info = operations.get("ann", op)
    return "" if info is None else info.state


def redis_answers(operations: Operations) -> bool:
    try:
        return bool(operations.of("ann"))
    except Exception:  # noqa: BLE001 - whatever it is, it does not answer
        return False


def test_no_task_is_lost_while_redis_accepts_no_writes(tmp_path: Path, own_redis: RedisServer) -> None:
    with running(tmp_path, own_redis.url, "eb", **QUICK) as gateway:
        worker = Worker(own_redis.url, "eb")
        worker.start(OperationRef("ann", "9"), lease=60)
        worker.close()
        headers = {"Authorization": f"Bearer {token('ann')}"}
        url = f"{gateway.http}{gateway.prefix}/operations/9"
        own_redis.client.config_set("maxmemory", 1)
        wait_until(lambda: gateway.get("/readyz").status_code == 503, "the gateway to notice")
        refused = httpx.post(f"{url}/cancel", headers=headers, timeout=10)
        assert (refused.status_code, refused.json()["code"]) == (503, "read_only")
        assert int(refused.headers["retry-after"]) >= 1
        assert httpx.get(url, headers=headers, timeout=10).json()["operation"]["state"] == "running", "reading goes on"
        own_redis.client.config_set("maxmemory", 0)
        wait_until(lambda: gateway.get("/readyz").status_code == 200, "the gateway to be well again")
        assert httpx.post(f"{url}/cancel", headers=headers, timeout=10).status_code == 200
        own_redis.kill()
        unavailable = httpx.get(url, headers=headers, timeout=10)
        assert (unavailable.status_code, unavailable.json()["code"]) == (503, "unavailable")
