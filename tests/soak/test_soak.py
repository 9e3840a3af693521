"""Many operations, whose workers are killed at random. At the end each agrees with the ledger of the tasks."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from random import Random

import pytest

from eventbus import BusSettings, configure, default_bus
from eventbus.backends.redis.operation_client import Operations
from tests.conftest import RedisServer
from tests.soak import app as a
from tests.soak.channel_listener import ChannelListener
from tests.soak.conftest import SEED, TASKS
from tests.soak.fleet import Fleet, Worker, resident
from tests.soak.flower import Flower
from tests.soak.flows import Flow, Flows
from tests.soak.ledger import Ledger
from tests.soak.operation_history import history_of
from tests.soak.oracle import (
    Truth,
    after_the_end,
    faults_of,
    faults_of_events,
    has_vanished,
    totals,
    truths,
    unexplained,
)
from tests.webui_adapter.gateways import GatewayProcess
from worker_adapter import start_operation

LONG = TASKS > 5_000
SILENCE = 60.0  # seconds without an end, after which the remaining operations hang
PAUSE = 12.0  # the same if no process may know of an end
CONCURRENT = 60 if LONG else 25  # operations
USERS = 50
CANCELLED = 0.04
PROCESS_EVERY, WORKER_EVERY = (250, 2_500) if LONG else (25, 200)  # tasks
BUFFER = 2**20  # bytes that Redis may hold for one connection: results that nothing reads would grow it
GROWTH = 12 * 2**20  # bytes that a process may gain after it has warmed up, Flower too

SETTINGS = {
    "EVENTBUS_LOST_PATIENCE": "PT60S",
    "EVENTBUS_WORKER_LEASE": "3",
    "EVENTBUS_WORKER_CANCEL_POLL": "0.1",
    "EVENTBUS_LOG_LIMIT": "100000",
    "EVENTBUS_DEDUP_WINDOW": "100000",
    "EVENTBUS_OPERATIONS_LIMIT": "5000",
}


@pytest.fixture
def world(own_redis: RedisServer, tmp_path, monkeypatch):
    """Redis, a gateway, two workers, a listener, and this process as the site that starts operations."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    ledger = Ledger(tmp_path / "ledger")
    server = own_redis.url.removesuffix("/0")
    environment = {
        **os.environ,
        "TESTS_REDIS": server,
        "EVENTBUS_REDIS_URL": own_redis.url,
        "EVENTBUS_SPOOL_DIR": str(tmp_path / "spool"),
        "SOAK_LEDGER": str(tmp_path / "ledger"),
        # In the short version a message is redelivered only after a kill. The oracle checks that.
        "SOAK_VISIBILITY": "2" if LONG else "3600",
        "SOAK_EVENTS": "1" if LONG else "",
    }
    a.app.conf.update(broker_url=f"{server}/1", result_backend=f"{server}/2")
    a.app._pool = a.app.amqp._producer_pool = None
    former = default_bus()
    configure(BusSettings(redis_url=own_redis.url))
    workers = [Worker(name, tmp_path / f"{name}.log", environment, 2) for name in ("steady", "hurt")]
    gateway = GatewayProcess(tmp_path, own_redis.url, sweep_interval=0.5, sweep_lease=2, lease_grace=3, **SETTINGS)
    # In the long version only: the short version ends before Flower is full.
    flower = Flower(tmp_path / "flower.log", environment) if LONG else None
    with (
        gateway,
        ChannelListener(own_redis.url) as listener,
        Fleet(workers, ledger, SEED) as fleet,
        flower or contextlib.nullcontext(),
    ):
        yield World(own_redis, ledger, listener, fleet, flower)
    default_bus().close()
    configure(bus=former)


class World:
    """All parts of the test."""

    def __init__(
        self, redis: RedisServer, ledger: Ledger, listener: ChannelListener, fleet: Fleet, flower: Flower | None
    ) -> None:
        self.redis, self.ledger, self.listener, self.fleet, self.flower = redis, ledger, listener, fleet, flower
        self.started: dict[str, tuple[str, Flow]] = {}
        self.cancelled: set[str] = set()
        self.planned = 0
        self._random = Random(SEED)
        self._flows = Flows(SEED)
        self._kill_at, self._kill_worker_at = PROCESS_EVERY, WORKER_EVERY // 2
        self._restored = 0.0
        self._to_cancel: dict[str, int] = {}
        self._warm: dict[str, int] = {}

    def run(self, operations: Operations) -> None:
        """Start operations and kill workers until there have been enough; wait for the ends."""
        heard, since = 0, time.monotonic()
        while self.planned < TASKS or len(self.listener.ended) < len(self.started):
            if len(self.listener.ended) > heard:
                heard, since = len(self.listener.ended), time.monotonic()
            if time.monotonic() - since > (SILENCE if self._hopes() else PAUSE):
                return  # the remaining operations hang and will be reported, or no process can know of them
            if self.planned < TASKS and len(self.started) - len(self.listener.ended) < CONCURRENT:
                self._start()
                continue
            self._harm(operations)
            if LONG:
                self.restore()
            time.sleep(0.01)

    def grown(self) -> dict[str, int]:
        """Bytes gained since a fifth of the tasks, by the main process that is never killed, and by Flower."""
        now = self._resident()
        return {name: now[name] - warm for name, warm in self._warm.items()}

    def _resident(self) -> dict[str, int]:
        flower = {} if self.flower is None else {"Flower": resident(self.flower.pid)}
        return {"the worker": resident(self.fleet.workers[0].pid), **flower}

    def truth(self) -> dict[str, Truth]:
        """The contents of the ledger."""
        return truths(self.ledger.runs(), self.ledger.kills(), self.listener.lost)

    def _hopes(self) -> bool:
        """Whether there is an operation that has to end."""
        left = len(self.started) - len(self.listener.ended)
        return self.planned < TASKS or left > self.fleet.workers_killed

    def _start(self) -> None:
        flow = self._flows.next()
        user = f"u{len(self.started) % USERS}"
        operation = start_operation(flow.signature, user=user, label=flow.shape)
        # The result is dropped immediately. Otherwise a separate subscription would wait for it.
        self.started[operation.id] = user, flow
        self.planned += flow.planned
        if self._random.random() < CANCELLED:
            # After some more tasks of any operation. By then it waits, runs or has ended.
            self._to_cancel[operation.id] = self.listener.begun + self._random.randint(0, 4 * flow.planned)

    def restore(self) -> None:
        """Requeue the messages that killed workers had taken. Workers do so, but only every hundred seconds."""
        if time.monotonic() > self._restored + 1:
            self._restored = time.monotonic()
            with a.app.connection_for_write() as connection:
                connection.default_channel.qos.restore_visible(num=100, interval=1)

    def _harm(self, operations: Operations) -> None:
        ran = self.listener.begun
        if not self._warm and ran > TASKS // 5:
            self._warm = self._resident()
        if ran >= self._kill_at:
            self._kill_at += PROCESS_EVERY
            self.fleet.kill_process()
        # In the long version only. There the messages of killed workers are requeued by hand, and with them those that
        # other workers are running. So tasks run twice at the same time, as after a visibility timeout.
        if LONG and ran >= self._kill_worker_at:
            self._kill_worker_at += WORKER_EVERY
            self.fleet.kill_worker()
        for op in [op for op, at in self._to_cancel.items() if ran >= at]:
            del self._to_cancel[op]
            self.cancelled.add(op)
            operations.cancel(self.started[op][0], op)


def test_every_operation_ends_once_as_the_ledger_says(world, report):
    began = time.monotonic()
    with Operations(BusSettings(redis_url=world.redis.url)) as operations:
        world.run(operations)
        default_bus().flush()
        found = {op: operations.get(user, op) for op, (user, _) in world.started.items()}
    truth, runs, kills = world.truth(), world.ledger.runs(), world.ledger.kills()
    vanished = {op for op, info in found.items() if has_vanished(info, kills)}
    faults, late_events = [], Counter()
    for op, (_, flow) in world.started.items():
        if op in vanished:
            continue
        known = truth.get(op, Truth())
        types = world.listener.types[op]
        state = found[op].state if found[op] is not None else ""
        wrong = faults_of(found[op], known, planned=flow.planned, cancelled=op in world.cancelled)
        wrong += faults_of_events(types, state)
        if not LONG:
            wrong += [f"ran twice without a kill: {task}" for task in unexplained(known)]
        if wrong:
            history = history_of([run for run in runs if run.op == op], kills, world.listener.events_of[op])
            faults.append("\n".join([f"{flow.shape} {op}", *wrong, history]))
        late_events.update(f"{type_} after {state}" for type_ in after_the_end(types, state))
    seconds = time.monotonic() - began
    killed = f"{world.fleet.processes_killed} processes and {world.fleet.workers_killed} workers killed"
    report(f"{len(runs)} runs of {world.planned} tasks planned, {len(found)} operations: {totals(found)}")
    report(f"{killed}, {len(world.cancelled)} operations cancelled")
    report(f"{seconds:.0f} s, {len(runs) / seconds:.0f} runs a second, {world.listener.events} events heard")
    report(f"{len(vanished)} operations that lost a message with a worker")
    report(f"events of tasks after the end of their operation: {dict(late_events)}")
    buffers = {client["name"] or client["addr"]: int(client["omem"]) for client in world.redis.client.client_list()}
    report(f"largest output buffer of Redis: {max(buffers.values()) / 2**10:.0f} kB, of {len(buffers)} connections")
    grown = world.grown()
    for name, growth in grown.items():
        report(f"memory of {name}: {growth / 2**20:+.1f} MB since it had warmed up")
    assert not faults, "\n\n".join(faults[:5])
    assert len(vanished) <= world.fleet.workers_killed
    assert world.listener.holes == 0
    assert max(buffers.values()) < BUFFER, buffers
    assert grown
    assert max(grown.values()) < GROWTH
    if world.flower is not None:
        report(f"{world.flower.heard()} events heard by Flower")
        assert world.flower.heard() > len(runs), "the measured Flower has received the tasks"
