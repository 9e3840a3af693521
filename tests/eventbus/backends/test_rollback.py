"""A channel whose data went back in time: a fork ends its epoch, and offsets continue."""

from __future__ import annotations

import contextlib

import pytest
import redis
from redis.cluster import RedisCluster

from eventbus import Event
from eventbus.backends.ports import Published, Write
from eventbus.backends.redis.publisher import RedisPublisher
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.errors import Unavailable
from eventbus.protocol.cursor import Position
from tests.conftest import wait_until

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
    assert (history.kept, history.lossy) == (None, True), "its data went back in time"
    assert publish(ends, 3) == (history.position.epoch, 3)


@pytest.mark.parametrize("ends", ["redis"], indirect=True)
async def test_a_fork_names_the_epoch_before_and_where_it_ended(ends) -> None:
    """A process compares its last write with both."""
    first = publish(ends, 1, 2)
    assert await ends.reader.fork(CHANNEL, first.epoch)
    state = redis.Redis.from_url(ends.settings.redis_url).hgetall(Keys(ends.settings.key_prefix).channel(CHANNEL)[0])
    assert (state[b"parent"].decode(), state[b"fork"]) == (first.epoch, b"2")


async def test_a_channel_without_data_is_not_forked(ends) -> None:
    assert not await ends.reader.fork(CHANNEL, "e1")
    assert (await ends.reader.read(CHANNEL, None)).position == ("", 0)


# No other process restores the data of a broker in this process.
@pytest.mark.parametrize("ends", ["redis", "cluster"], indirect=True)
async def test_a_publisher_ends_an_epoch_whose_offset_went_back(ends) -> None:
    cluster = ends.settings.redis.kind == "cluster"
    node = ends.settings.redis.nodes[0]
    client = RedisCluster(node.host, node.port) if cluster else redis.Redis.from_url(ends.settings.redis_url)
    first = publish(ends, 1, 2)
    kept = {key: client.dump(key) for key in Keys(ends.settings.key_prefix).channel(CHANNEL) if client.exists(key)}
    assert publish(ends, 3, 4) == (first.epoch, 4)
    for key, value in kept.items():
        client.restore(key, 60_000, value, replace=True)
    assert publish(ends, 5, 6) == (first.epoch, 4), "this answer reveals it"
    after = publish(ends, 7)
    assert after.offset == 5
    assert after.epoch != first.epoch


@pytest.mark.parametrize("ends", ["cluster"], indirect=True)
async def test_a_cluster_without_its_registry_forks_unless_a_process_remembers_it(ends) -> None:
    node = ends.settings.redis.nodes[0]
    client = RedisCluster(node.host, node.port)
    registry, voters = Keys.of(ends.settings).timeline
    first = publish(ends, 1)
    client.delete(registry, voters)
    another = ends.another()
    ends.publisher.close()
    ends.publisher = another
    second = publish(ends, 2)
    assert second.offset == 2
    assert second.epoch != first.epoch, "this process cannot know whether a shard lost data"
    client.delete(registry)
    ends.publisher = RedisPublisher(ends.settings, voter=True)
    another.close()
    third = publish(ends, 3)
    assert third.epoch != second.epoch
    client.delete(registry)
    wait_until(lambda: publish(ends, 4) and client.exists(registry), "a renewal", 30)
    assert publish(ends, 5).epoch == third.epoch, "its process has written the registry again"


def forget_connections(ends) -> redis.Redis:
    """Make each connection join again."""
    client = redis.Redis.from_url(ends.settings.redis_url)
    client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    return client


def publish_again(ends, number: int) -> Position:
    """As an outbox does until Redis accepts the event."""
    for _ in range(100):
        with contextlib.suppress(Unavailable):
            return publish(ends, number)
    raise AssertionError("Redis accepts nothing")


@pytest.mark.parametrize("ends", ["redis"], indirect=True)
async def test_after_a_restored_backup_all_channels_fork(ends) -> None:
    ends.settings = ends.settings.model_copy(update={"timeline_patience": 0.05})
    ends.publisher = RedisPublisher(ends.settings, voter=True)
    first = publish(ends, 1, 2)
    timeline = Keys(ends.settings.key_prefix).timeline[0]
    client = forget_connections(ends)
    client.hset(timeline, mapping={"server": "restored", "generation": 0, "ancestors": ""})
    client.hset(Keys(ends.settings.key_prefix).channel(CHANNEL)[0], "timeline", "abcdef0123.0")
    after = publish_again(ends, 3)
    assert after.offset == 3
    assert after.epoch != first.epoch
    state = client.hgetall(Keys(ends.settings.key_prefix).channel(CHANNEL)[0])
    assert (state[b"parent"].decode(), state[b"fork"]) == (first.epoch, b"2")
    assert publish(ends, 4) == (after.epoch, 4)
    ends.publisher.close()


def idle(ends, entries: list[bytes]) -> list[bool]:
    """Return whether the voters are idle, as their entries say."""
    cluster = ends.settings.redis.kind == "cluster"
    return [entry.split(b" ")[1] == b"1" if cluster else entry.endswith(b" idle") for entry in entries]


@pytest.mark.parametrize("ends", ["redis", "cluster"], indirect=True)
async def test_an_idle_process_and_one_that_ended_in_order_are_not_waited_for(ends) -> None:
    cluster = ends.settings.redis.kind == "cluster"
    node = ends.settings.redis.nodes[0]
    client = RedisCluster(node.host, node.port) if cluster else redis.Redis.from_url(ends.settings.redis_url)
    voters = Keys(ends.settings.key_prefix).timeline[1]
    publisher = RedisPublisher(ends.settings, voter=True)
    ends.publisher = publisher
    assert publisher.rest_in is None
    publish(ends, 1)
    assert publisher.rest_in is not None
    assert idle(ends, client.hvals(voters)) == [False]
    wait_until(lambda: publisher.rest() or publisher.rest_in is None, "the process to be idle")
    assert idle(ends, client.hvals(voters)) == [True]
    publish(ends, 2)
    assert idle(ends, client.hvals(voters)) == [False], "written before the event"
    publisher.close()
    if cluster:
        assert [name.split(b" ")[0] for name in client.hkeys(voters)] == [b"ended"], "its mark proves all before it"
        assert idle(ends, client.hvals(voters)) == [True]
    else:
        assert client.hvals(voters) == []
