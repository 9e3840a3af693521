"""The gateway with publications written directly to Redis (`docs/reference/redis-keys.md`).

With `emit`, a worker process and Redis take more CPU time per event than the gateway. On two cores, events to single
users therefore never saturate the gateway. This publisher omits validation, log, snapshot and ids; the gateway does the
same work. It measures the cost of the gateway when the gateway is the limit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import redis

from bench.contenders.contract import Emission
from bench.contenders.eventbus import OURS
from bench.payload import NAME, OPERATION, padding
from eventbus.backends.redis.connections.resp import pack
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.protocol.records import join_records, routing_header
from eventbus.protocol.topics import operation_topic, user_channel

__all__ = ["OURS_FED"]

_EPOCH: Final = "feed"
_ID: Final = "01934e7a-0000-7000-8000-000000000000"


class _Feed:
    """Publishes records. It counts the offsets of the channels itself, as the only publisher."""

    def __init__(self, redis_url: str) -> None:
        self._keys = Keys("eb")
        # The client library has no types for it.
        self._connection: Any = redis.ConnectionPool.from_url(redis_url, protocol=2).get_connection()
        self._offsets: defaultdict[str, int] = defaultdict(int)
        self._pad = padding("u00000")

    def publish(self, batch: Sequence[Emission]) -> None:
        commands = [self._publication(emission) for emission in batch]
        self._connection.send_packed_command([b"".join(map(pack, commands))])
        for _ in commands:
            self._connection.read_response()

    def _publication(self, emission: Emission) -> tuple[str | bytes | int, ...]:
        assert emission.user is not None
        channel, topic = user_channel(emission.user), operation_topic(emission.user, OPERATION)
        before = self._offsets[channel]
        offset = self._offsets[channel] = before + 1
        header = routing_header(
            lane=1, keep="log", expires_ms=0, emitted_us=emission.at, type_=NAME, topic=topic, key=None
        )
        event = (
            f'{{"offset":{offset},"id":"{_ID}","type":"{NAME}","topic":"{topic}","time":{emission.at // 1000},'
            f'"data":{{"seq":{emission.seq},"at":{emission.at},"pad":"{self._pad}"}}}}'
        )
        record = f"{offset} {header}\n{event}".encode()
        return "PUBLISH", self._keys.live(channel), join_records(_EPOCH, before, [record])


OURS_FED = replace(
    OURS, name="ours-fed", title="ours, fed past emit", publisher=_Feed, emitter=None, cases=frozenset({"direct-flat"})
)
