"""A channel whose data went back in time: a fork ends its epoch, and offsets continue."""

from __future__ import annotations

import redis

from eventbus import Event
from eventbus.backends.ports import Published, Write
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.protocol.cursor import Position

CHANNEL = "user:42"


class Logged(Event, name="rollback.logged"):
    n: int = 0


def publish(ends, *numbers: int) -> Position:
    emissions = [ends.builder.build(f"{CHANNEL}:operation:1", Logged(n=n)) for n in numbers]
    (published,) = ends.publisher.publish([Write(CHANNEL, emissions)])
    assert isinstance(published, Published)
    return published.position


async def test_a_fork_ends_the_epoch_once_and_offsets_continue(ends) -> None:
    first = publish(ends, 1, 2)
    assert await ends.reader.fork(CHANNEL, first.epoch)
    assert not await ends.reader.fork(CHANNEL, first.epoch), "another process was first"
    history = await ends.reader.read(CHANNEL, 0)
    assert history.position.epoch != first.epoch
    assert history.position.offset == 2
    assert [entry.record.offset for entry in history.log] == [1, 2]
    assert publish(ends, 3) == (history.position.epoch, 3)


async def test_a_channel_without_data_is_not_forked(ends) -> None:
    assert not await ends.reader.fork(CHANNEL, "e1")
    assert (await ends.reader.read(CHANNEL, None)).position == ("", 0)


async def test_a_publisher_ends_an_epoch_whose_offset_went_back(ends) -> None:
    if ends.settings.redis_url.startswith("memory"):
        return  # no other process restores its data
    client = redis.Redis.from_url(ends.settings.redis_url)
    first = publish(ends, 1, 2)
    kept = {key: client.dump(key) for key in Keys(ends.settings.key_prefix).channel(CHANNEL) if client.exists(key)}
    assert publish(ends, 3, 4) == (first.epoch, 4)
    for key, value in kept.items():
        client.restore(key, 60_000, value, replace=True)
    assert publish(ends, 5, 6) == (first.epoch, 4), "this answer reveals it"
    after = publish(ends, 7)
    assert after.offset == 5
    assert after.epoch != first.epoch
