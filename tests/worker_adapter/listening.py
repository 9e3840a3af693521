"""Events of a channel, from before an operation begins until its last event."""

import asyncio
import json
import time
from dataclasses import dataclass

import redis

from eventbus import BusSettings
from eventbus.backends.redis.reader import RedisReader
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.protocol.records import parse_publication

END = ("operation.succeeded", "operation.failed", "operation.cancelled")


@dataclass
class Heard:
    offset: int
    id: str
    type: str
    topic: str
    data: dict


def _heard(record):
    event = json.loads(record.event)
    return Heard(record.offset, event["id"], event["type"], event["topic"], event["data"])


class SubscriptionListener:
    """Live publications of one user's channel."""

    def __init__(self, url, user):
        self.user = user
        self._client = redis.Redis.from_url(url)
        self._pubsub = self._client.pubsub()
        self._pubsub.subscribe(Keys("eb").live(f"user:{user}"))
        assert self._pubsub.get_message(timeout=5)["type"] == "subscribe"
        self.events = []

    def until(self, enough, seconds=20.0):
        """Listen until ``enough`` (of all events) is true; return them."""
        deadline = time.monotonic() + seconds
        while not enough(self.events):
            left = deadline - time.monotonic()
            if left <= 0:
                received = "\n".join(f"{e.offset} {e.type} {e.data}" for e in self.events)
                raise AssertionError(f"not within {seconds} s; received:\n{received}")
            message = self._pubsub.get_message(timeout=min(left, 0.2))
            if message is not None:
                self.events += [_heard(record) for record in parse_publication(message["data"]).records]
        return self.events

    def close(self):
        self._pubsub.close()
        self._client.close()


def history(url, user, after=0):
    """Log above an offset, snapshot and position of a user's channel."""

    async def read():
        reader = RedisReader(BusSettings(redis_url=url))
        try:
            return await reader.read(f"user:{user}", after)
        finally:
            await reader.aclose()

    return asyncio.run(read())


def logged(url, user, after=0):
    return [_heard(entry.record) for entry in history(url, user, after).log]
