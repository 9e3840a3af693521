"""The blocking connection: what the server or a fork does to it between two round trips."""

from __future__ import annotations

import os
from itertools import count

import pytest
import redis

from eventbus import BusSettings
from eventbus.backends.redis.connections import blocking as module
from eventbus.backends.redis.connections.blocking import BlockingConnection
from eventbus.backends.redis.scripts.script import fresh_epoch


@pytest.fixture
def line(bus_settings):
    line = BlockingConnection(bus_settings)
    yield line
    line.close()


def client_id(line: BlockingConnection) -> int:
    (id_,) = line.round_trip([("CLIENT", "ID")])
    return id_


def said_by_a_child(say) -> str:
    """Returns the result of ``say`` in a forked child."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, str(say()).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(write)
    with os.fdopen(read) as said:
        return said.read()


@pytest.mark.parametrize("fresh", [0.0, 60.0])
def test_the_connection_stays(line, fresh, monkeypatch):
    monkeypatch.setattr(module, "_FRESH", fresh)
    assert len({client_id(line) for _ in range(5)}) == 1


def test_a_connection_that_the_server_closed_long_ago_is_replaced(line, redis_server, monkeypatch):
    monkeypatch.setattr(module, "_FRESH", 0.0)
    first = client_id(line)
    redis_server.client.client_kill_filter(_id=first)
    assert client_id(line) > first


def test_one_that_was_closed_just_now_fails_once(line, redis_server, monkeypatch):
    monkeypatch.setattr(module, "_FRESH", 60.0)
    first = client_id(line)
    redis_server.client.client_kill_filter(_id=first)
    with pytest.raises((redis.ConnectionError, OSError)):
        client_id(line)
    assert client_id(line) > first


def test_a_forked_child_leaves_its_parents_connection_alone(line, monkeypatch):
    monkeypatch.setattr(module, "_FRESH", 60.0)
    parents = client_id(line)
    childs = said_by_a_child(lambda: client_id(line))
    assert int(childs) > parents
    assert client_id(line) == parents


def test_an_epoch_is_never_given_twice_not_even_by_a_forked_child():
    fresh_epoch()
    childs = set(said_by_a_child(lambda: " ".join(fresh_epoch() for _ in range(1000))).split())
    own = {fresh_epoch() for _ in range(1000)}
    assert len(childs) == len(own) == 1000
    assert not childs & own


def test_a_late_reply_is_never_assigned_to_another_call(own_redis):
    line = BlockingConnection(BusSettings(redis_url=own_redis.url, socket_timeout=0.05))
    line.round_trip([("PING",)])
    own_redis.client.client_pause(175)
    for number in count():
        try:
            answers = line.round_trip([("ECHO", number)])
        except (redis.RedisError, OSError):
            continue
        assert answers == [b"%d" % number]
        break
    line.close()
