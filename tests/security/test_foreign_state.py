"""A state that another program has damaged in Redis disturbs no other channel, and no caller."""

from __future__ import annotations

import redis

from eventbus import Bus, BusSettings
from eventbus.backends.redis.scripts.keys import Keys
from tests.conftest import wait_until
from tests.webui_adapter.events import Note


def test_an_epoch_with_a_space_holds_up_nothing_else(bus_settings: BusSettings, redis_url: str) -> None:
    client, keys = redis.Redis.from_url(redis_url), Keys.of(bus_settings)
    state = keys.channel("user:ann")[0]
    client.hset(state, mapping={"epoch": "ab cd", "offset": "1", "logged": "0", "until": "0"})
    client.expire(state, 60)
    bus = Bus(bus_settings)
    bus.emit("ann", "op", Note(n=1))
    receipt = bus.emit("bob", "op", Note(n=2))
    bus.flush(1)  # raises nothing, and need not succeed
    wait_until(lambda: receipt.status in {"published", "duplicate"}, "the event of the other channel")
    assert client.xlen(keys.channel("user:bob")[1]) == 1
    client.delete(state)
    wait_until(lambda: bus.flush(1), "the damaged channel to go on when it is repaired")
    bus.close()
