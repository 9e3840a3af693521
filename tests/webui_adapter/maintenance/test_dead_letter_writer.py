"""The writer of dead letters."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from eventbus import BusSettings
from eventbus.backends.redis.pending_store import RedisPendingStore
from eventbus.backends.redis.reader import RedisReader
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.errors import Refused, TransportError
from tests.conftest import RedisServer
from tests.webui_adapter.gateways import eventually
from tests.webui_adapter.maintenance.test_dead_letter_file import undeliverable
from webui_adapter.maintenance.dead_letter_file import DeadLetterFile
from webui_adapter.maintenance.dead_letter_writer import DeadLetterWriter


class Graves:
    """A store that accepts dead letters, or refuses them."""

    def __init__(self) -> None:
        self.error: TransportError | None = None
        self.ids: list[str] = []

    async def dead_letter(self, channel: str, id: str, reason: str, content: bytes) -> bool:
        if self.error is not None:
            raise self.error
        self.ids.append(id)
        return True


async def test_dead_letters_that_redis_refuses_wait_on_disk(tmp_path: Path) -> None:
    graves, counters, dead_letter_file = Graves(), Counter[str](), DeadLetterFile(tmp_path, 10_000)
    dead_letter_writer = DeadLetterWriter(graves, dead_letter_file, 3, 0.01, counters)  # type: ignore[arg-type] # the methods that it uses
    graves.error = Refused("OOM")
    dead_letter_writer.add([undeliverable(n) for n in range(5)])
    assert counters["drop.dead_waiting"] == 2
    running = asyncio.create_task(dead_letter_writer.run())

    def on_disk() -> int:
        count = 0
        for name in ("dead-letters.jsonl", "dead-letters.moving"):
            with suppress(FileNotFoundError):  # renamed, or gone meanwhile
                count += (tmp_path / name).read_bytes().count(b'"id"')
        return count

    await eventually(lambda: on_disk() == 3, "the file")
    dead_letter_writer.add([undeliverable(9)])
    await eventually(lambda: on_disk() == 4, "the fourth")
    graves.error = None
    await eventually(lambda: len(graves.ids) == 4, "the graves")
    assert graves.ids == ["c0", "c1", "c2", "c9"]
    await eventually(lambda: on_disk() == 0, "the files to be gone")
    assert counters["dead.undecodable"] == 4
    running.cancel()


async def test_a_dead_letter_that_redis_always_refuses_does_not_delay_the_others(
    tmp_path: Path, bus_settings: BusSettings, redis_server: RedisServer
) -> None:
    keys, reader = Keys(bus_settings.key_prefix), RedisReader(bus_settings)
    counters, dead_letter_file = Counter[str](), DeadLetterFile(tmp_path, 10_000)
    redis_server.client.set(keys.pending("user:broken")[4], "no hash", ex=60)
    dead_letter_writer = DeadLetterWriter(RedisPendingStore(bus_settings, reader), dead_letter_file, 10, 0.01, counters)
    running = asyncio.create_task(dead_letter_writer.run())
    dead_letter_writer.add([replace(undeliverable(1), channel="user:broken"), undeliverable(2)])
    dead = keys.pending(undeliverable(2).channel)[4]
    await eventually(lambda: redis_server.client.hexists(dead, undeliverable(2).id), "the other one's grave")
    redis_server.client.delete(keys.pending("user:broken")[4])
    await eventually(lambda: counters["dead.undecodable"] == 2, "the first one, which was kept")
    running.cancel()
    await reader.aclose()
