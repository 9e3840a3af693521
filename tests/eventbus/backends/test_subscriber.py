"""The subscriber's connection: which answer belongs to which command, and when it is lost."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable

import pytest

from eventbus import BusSettings
from eventbus.backends.factory import connect_probe
from eventbus.backends.redis.connections.subscription import SubscriptionConnection
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.backends.redis.subscriber import RedisSubscriber
from eventbus.errors import InvalidRecord, Unavailable
from eventbus.protocol.records import parse_publication
from tests.conftest import RedisServer
from tests.eventbus.backends.heard import Heard


def answer(kind: bytes, channel: bytes) -> bytes:
    return b"*3\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n:1\r\n" % (len(kind), kind, len(channel), channel)


async def test_each_subscribe_waits_for_its_own_acknowledgement():
    connection = SubscriptionConnection(lambda *_: None, lambda: None, lambda _: None)
    (first,) = connection.subscribe("x")
    connection.send("UNSUBSCRIBE", "x")
    (second,) = connection.subscribe("x")
    connection.data_received(answer(b"subscribe", b"x"))
    assert first.done()
    assert not second.done()
    connection.data_received(answer(b"unsubscribe", b"x") + answer(b"subscribe", b"x"))
    assert second.done()


def test_an_epoch_that_is_no_text_is_no_publication_of_ours():
    with pytest.raises(InvalidRecord):
        parse_publication(b"\xff 0\n1 n log 0 0 a.b user:1:x -\n{}")


# --- against a separate server ---------------------------------------------------------------------------------


@pytest.fixture
async def heard(own_redis: RedisServer) -> AsyncIterator[tuple[RedisSubscriber, Heard, BusSettings]]:
    settings = BusSettings(redis_url=own_redis.url, ping_interval=0.1, silence_limit=0.4, retry_max=0.2)
    subscriber, listener = RedisSubscriber(settings), Heard()
    await subscriber.start(listener)
    await until(lambda: listener.restorations == 1, "the connection")
    yield subscriber, listener, settings
    await subscriber.aclose()


async def until(condition: Callable[[], object], what: str) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)
    assert condition(), what


async def test_a_server_that_falls_silent_is_lost_and_found_again(heard, own_redis: RedisServer):
    _, listener, _ = heard
    own_redis.process.send_signal(signal.SIGSTOP)
    await until(lambda: listener.losses, "the loss")
    own_redis.process.send_signal(signal.SIGCONT)
    assert "not even a reply to PING" in listener.losses[0]
    await until(lambda: listener.restorations == 2, "the end of it")


async def test_a_connection_that_is_only_quiet_stays(heard):
    _, listener, settings = heard
    await asyncio.sleep(settings.silence_limit * 3)
    assert listener.losses == []


async def test_a_busy_event_loop_does_not_look_like_a_silent_server(heard):
    _, listener, settings = heard
    for _ in range(3):
        time.sleep(settings.silence_limit * 1.5)  # noqa: ASYNC251 - that is what is tried here
        await asyncio.sleep(0.05)
    assert listener.losses == []


async def test_the_connection_can_be_given_up_from_here_and_all_is_subscribed_again(heard, own_redis: RedisServer):
    subscriber, listener, settings = heard
    await subscriber.subscribe("user:1")
    subscriber.reconnect("a test")
    await until(lambda: listener.losses == ["a test"], "the loss")
    await until(lambda: listener.restorations == 2, "the new connection")
    subscriber.unsubscribe("user:2")
    assert own_redis.client.publish(Keys(settings.key_prefix).live("user:1"), b"x") == 1
    await until(lambda: listener.received_ == [("user:1", b"x")], "what is published")


async def test_a_canary_returns_and_the_probe_reports_refused_writes(heard, own_redis: RedisServer):
    _, listener, settings = heard
    probe = connect_probe(settings)
    assert await probe.publish_canary("one 1", "one") is None
    await until(lambda: listener.probes == ["one 1"], "the probe")
    assert 0 < own_redis.client.pttl("eb:probe:one") <= 60_000
    own_redis.client.config_set("maxmemory", 1)
    assert await probe.publish_canary("one 2", "one") == "it is out of memory"
    await until(lambda: listener.probes == ["one 1", "one 2"], "the probe, all the same")
    own_redis.client.config_set("maxmemory", 0)
    own_redis.client.replicaof("127.0.0.1", 1)
    assert await probe.publish_canary("one 3", "one") == "it is a replica"
    own_redis.client.replicaof("NO", "ONE")
    assert await probe.publish_canary("one 4", "one") is None
    own_redis.kill()
    with pytest.raises(Unavailable):
        await probe.publish_canary("one 5", "one")
    await probe.aclose()
