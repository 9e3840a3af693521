"""All events of all operations, received live, from before the first one."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from typing import Self

import redis

from eventbus.protocol.records import parse_publication
from tests.soak.oracle import LostReport

__all__ = ["ChannelListener"]


class ChannelListener:
    """A thread that listens to all channels.

    Attributes:
        types: of each operation the types of its events, in order, without progress.
        events_of: the same with their times, in seconds, and their data.
        ended: operations that have ended.
        lost: of each operation, the tries that are reported as lost with their processes.
        begun: tasks that have begun, retries included.
        events: number of received events.
        holes: number of missing offsets, over all channels.
    """

    def __init__(self, url: str) -> None:
        self.types: defaultdict[str, list[str]] = defaultdict(list)
        self.events_of: defaultdict[str, list[tuple[float, str, str]]] = defaultdict(list)
        self.ended: set[str] = set()
        self.events = 0
        self.begun = 0
        self.lost: defaultdict[str, list[LostReport]] = defaultdict(list)
        self.holes = 0
        self._offsets: dict[bytes, int] = {}
        self._stop = threading.Event()
        self._client = redis.Redis.from_url(url)
        self._pubsub = self._client.pubsub()
        self._pubsub.psubscribe("eb:*:live")
        assert self._pubsub.get_message(timeout=5)["type"] == "psubscribe"
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._pubsub.close()
        self._client.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            message = self._pubsub.get_message(timeout=0.2)
            if message is not None and message["type"] == "pmessage":
                self._receive(message["channel"], parse_publication(message["data"]))

    def _receive(self, channel, publication) -> None:
        for record in publication.records:
            self.holes += record.offset - self._offsets.get(channel, 0) - 1
            self._offsets[channel] = record.offset
            self.events += 1
            if record.type.endswith(".progress") or ":operation:" not in record.topic:
                continue
            op = record.topic.rpartition(":")[2]
            event = json.loads(record.event)
            data, at = event["data"], event["time"] / 1000
            self.types[op].append(record.type)
            self.events_of[op].append((at, record.type, json.dumps(data)))
            self.begun += record.type == "task.started"
            if record.type == "task.failed" and data["error"].startswith("WorkerLost"):
                self.lost[op].append(LostReport(data["task"], data["retries"], data["name"].endswith(".late"), at))
            if record.type in {"operation.succeeded", "operation.failed", "operation.cancelled"}:
                self.ended.add(op)
                # A page reads the end from the data, which must agree with the type.
                assert data["state"] == record.type.rpartition(".")[2]
