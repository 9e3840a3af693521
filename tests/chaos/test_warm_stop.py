"""A worker that is stopped warmly while Redis is down: its events come later, and in order."""

from __future__ import annotations

import os
from pathlib import Path

from eventbus import Bus, BusSettings
from eventbus.protocol.topics import user_channel
from tests.chaos import emitting_tasks as a
from tests.conftest import RedisServer, wait_until
from tests.soak.fleet import Worker

COUNT = 60


def test_a_worker_that_is_stopped_while_redis_is_down_leaves_its_events_in_order(
    redis: RedisServer, own_redis: RedisServer, tmp_path: Path
) -> None:
    """Its broker answers. The bus has another Redis, which is killed while the task emits."""
    broker, spool, notes = redis.url.removesuffix("/0"), tmp_path / "spool", tmp_path / "notes"
    environment = {
        **os.environ,
        "TESTS_REDIS": broker,
        "EVENTBUS_REDIS_URL": own_redis.url,
        "EVENTBUS_SPOOL_DIR": str(spool),
    }
    worker = Worker("emitting", tmp_path / "worker.log", environment, 1, app="tests.chaos.emitting_tasks")
    worker.start()
    worker.wait_ready()
    a.app.conf.broker_url = f"{broker}/1"
    a.app._pool = a.app.amqp._producer_pool = None
    a.emit_numbered.apply_async((str(notes), COUNT))

    def emitted() -> int:
        return len(notes.read_text().splitlines()) if notes.exists() else 0

    wait_until(lambda: emitted() >= COUNT // 6, "the task to emit", 60)
    own_redis.kill()
    wait_until(lambda: emitted() >= COUNT // 3, "the task to go on without Redis", 60)
    worker.ask_to_stop()
    wait_until(lambda: emitted() == COUNT, "the task to end", 60)
    worker.stop()
    assert list(spool.rglob("*.spool")), "what Redis has not taken is on disk"

    own_redis.start()
    bus = Bus(BusSettings(redis_url=own_redis.url, spool_dir=spool))
    bus.outbox.start()
    wait_until(lambda: not list(spool.rglob("*.spool")), "the spool to be sent", 30)
    bus.close()
    name = f"eb:{{{user_channel('ann')}}}:log"
    log = [entry[b"r"] for _, entry in own_redis.client.xrange(name)]
    numbers = [int(record.rpartition(b'"n":')[2].partition(b",")[0].rstrip(b"}")) for record in log]
    assert numbers == list(range(numbers[0], COUNT)), "in order, and none of them is missing or doubled"
