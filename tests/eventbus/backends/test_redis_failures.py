"""Failures of a real server: lost scripts or keys, foreign keys, no memory, no answer."""

from __future__ import annotations

import signal

import pytest
import redis

from eventbus import BusSettings, Event
from eventbus.backends.ports import Write
from eventbus.backends.redis.publisher import RedisPublisher
from eventbus.backends.redis.reader import RedisReader
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.errors import Refused, Unavailable
from eventbus.events.encoder import EmissionBuilder


class Kept(Event, name="redis.kept"):
    text: str = ""


class Shown(Event, name="redis.shown", keep="latest"):
    pass


class PendingBatch(Event, name="redis.batch", deliver="ack"):
    pass


@pytest.fixture
def publisher(bus_settings):
    publisher = RedisPublisher(bus_settings)
    yield publisher
    publisher.close()


@pytest.fixture
def builder(bus_settings):
    return EmissionBuilder(bus_settings)


def write(publisher, builder, *payloads, channel="user:42"):
    return publisher.publish([Write(channel, [builder.build(f"{channel}:operation:9", p) for p in payloads])])[0]


def test_a_server_that_lost_its_scripts_gets_them_again_in_order(publisher, builder, redis_server):
    assert write(publisher, builder, Kept()).offsets == [1]
    redis_server.client.script_flush()
    requests = [Write("user:42", [builder.build("user:42:operation:9", Kept())]) for _ in range(3)]
    assert [answer.offsets[0] for answer in publisher.publish(requests)] == [2, 3, 4]


def test_a_script_that_is_new_to_the_server_does_not_change_the_order(bus_settings, builder, redis_server):
    redis_server.client.script_flush()
    # The second process finds the one script there, and not the other.
    for kinds, offsets in (([Kept], [1]), ([PendingBatch, Kept], [2, 3])):
        publisher = RedisPublisher(bus_settings)
        requests = [Write("user:42", [builder.build("user:42:operation:9", kind())]) for kind in kinds]
        assert [answer.offsets[0] for answer in publisher.publish(requests)] == offsets
        publisher.close()


async def test_an_evicted_state_is_another_life_without_the_old_log(publisher, builder, bus_settings, redis_server):
    first = write(publisher, builder, Kept(), Shown())
    redis_server.client.delete(Keys(bus_settings.key_prefix).channel("user:42")[0])
    second = write(publisher, builder, Kept())
    assert second.offsets == [1]
    assert second.position.epoch != first.position.epoch
    reader = RedisReader(bus_settings)
    history = await reader.read("user:42", 0)
    assert [(entry.previous, entry.record.offset) for entry in history.log] == [(0, 1)]
    assert not history.snapshot
    await reader.aclose()


async def test_a_log_of_the_former_layout_is_read_and_gone_on_with(publisher, builder, bus_settings, redis_server):
    """Each entry named the one before it; now that is left out where it is the one before in number."""
    write(publisher, builder, Kept(), Kept())
    log = Keys(bus_settings.key_prefix).channel("user:42")[1]
    entries = redis_server.client.xrange(log)
    assert [list(fields) for _, fields in entries] == [[b"r"], [b"r"]]
    redis_server.client.delete(log)
    for previous, (id_, fields) in enumerate(entries):
        redis_server.client.xadd(log, {"p": previous, "r": fields[b"r"]}, id=id_)
    redis_server.client.expire(log, 3600)
    write(publisher, builder, Shown(), Kept())
    reader = RedisReader(bus_settings)
    history = await reader.read("user:42", 0)
    assert [(entry.previous, entry.record.offset) for entry in history.log] == [(0, 1), (1, 2), (2, 4)]
    await reader.aclose()


def test_what_a_call_that_failed_has_left_in_the_window_does_no_harm(publisher, builder, bus_settings, redis_server):
    log = Keys(bus_settings.key_prefix).channel("user:42")[1]
    write(publisher, builder, Kept())
    redis_server.client.rename(log, f"{log}:aside")
    redis_server.client.set(log, "another program's", ex=60)
    emission = builder.build("user:42:operation:9", Kept())
    (refused,) = publisher.publish([Write("user:42", [emission])])
    assert isinstance(refused, Refused)
    redis_server.client.rename(f"{log}:aside", log)
    assert publisher.publish([Write("user:42", [emission])])[0].offsets == [2]


def test_one_bad_channel_does_not_take_others_along(publisher, builder, bus_settings, redis_server):
    log = Keys(bus_settings.key_prefix).channel("user:bad")[1]
    write(publisher, builder, Kept(), channel="user:bad")
    redis_server.client.set(log, "another program's", ex=60)
    requests = [
        Write(f"user:{user}", [builder.build(f"user:{user}:operation:9", Kept())]) for user in ("one", "bad", "two")
    ]
    one, bad, two = publisher.publish(requests)
    assert isinstance(bad, Refused)
    assert (one.offsets, two.offsets) == ([1], [1])


def test_every_key_lives_as_long_as_its_channel_and_the_state_longer(publisher, builder, bus_settings, redis_server):
    for channel, hours in (("user:42", 24), ("collection:7", 1)):
        write(publisher, builder, Kept(), Shown(), channel=channel)
        state, *others = Keys(bus_settings.key_prefix).channel(channel)
        ttl = redis_server.client.ttl
        assert all(hours * 3600 <= ttl(key) <= hours * 3600 * 1.2 for key in others)
        assert ttl(state) > 1.5 * ttl(others[0])


def test_a_key_that_comes_into_being_later_gets_a_life_too(publisher, builder, bus_settings, redis_server):
    write(publisher, builder, Kept())
    write(publisher, builder, Shown())
    for key in Keys(bus_settings.key_prefix).channel("user:42"):
        assert redis_server.client.ttl(key) > 3600


def test_out_of_memory_is_for_later_and_nothing_is_half_done(own_redis):
    settings = BusSettings(redis_url=own_redis.url)
    publisher, builder = RedisPublisher(settings), EmissionBuilder(settings)
    write(publisher, builder, Kept())
    own_redis.client.config_set("maxmemory", "1")
    answer = write(publisher, builder, Kept(text="x" * 100))
    assert isinstance(answer, Unavailable)
    own_redis.client.config_set("maxmemory", "0")
    assert write(publisher, builder, Kept()).offsets == [2]
    publisher.close()


def test_a_missing_or_silent_server_is_reported_within_the_limits(own_redis):
    settings = BusSettings(redis_url=own_redis.url, socket_timeout=0.3, connect_timeout=0.3)
    publisher, builder = RedisPublisher(settings), EmissionBuilder(settings)
    write(publisher, builder, Kept())
    own_redis.process.send_signal(signal.SIGSTOP)
    with pytest.raises(Unavailable):
        write(publisher, builder, Kept())
    own_redis.kill()
    with pytest.raises(Unavailable):
        write(publisher, builder, Kept())
    own_redis.start()
    assert write(publisher, builder, Kept()).offsets == [1]
    publisher.close()


def test_a_reply_that_came_too_late_is_not_assigned_to_another_call(own_redis):
    """After a time-out the connection still has an answer coming; it must not be read by the next call."""
    settings = BusSettings(redis_url=own_redis.url, socket_timeout=0.2)
    publisher, builder = RedisPublisher(settings), EmissionBuilder(settings)
    write(publisher, builder, Kept(), channel="user:a")
    own_redis.client.execute_command("CLIENT", "PAUSE", "600", "WRITE")
    with pytest.raises(Unavailable):
        write(publisher, builder, Kept(), channel="user:a")
    own_redis.client.execute_command("CLIENT", "UNPAUSE")
    answer = write(publisher, builder, Kept(), channel="user:b")
    assert answer.offsets == [1]
    publisher.close()


def test_a_password_is_used(own_redis):
    own_redis.client.config_set("requirepass", "p@ss")
    url = own_redis.url.replace("redis://", "redis://:p%40ss@")
    publisher, builder = RedisPublisher(BusSettings(redis_url=url)), EmissionBuilder(BusSettings())
    assert write(publisher, builder, Kept()).offsets == [1]
    publisher.close()
    own_redis_client = redis.Redis(port=own_redis.port, password="p@ss")
    own_redis_client.config_set("requirepass", "")
