"""Sentinels name the master: workers and gateways follow them, in a planned failover and after a kill."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventbus import Bus, BusSettings, Event, Unavailable
from eventbus.backends.factory import connect, connect_probe
from eventbus.backends.redis.connections.blocking import BlockingConnection
from eventbus.backends.redis.connections.sentinel_protocol import MasterView, SentinelSession
from eventbus.redis_url import Endpoint, parse_redis_url
from tests.conftest import wait_until
from tests.eventbus.backends.heard import Heard
from tests.servers.sentinel import SentinelSystem, running_sentinels

ONE, TWO = Endpoint("10.0.0.1", 6379), Endpoint("10.0.0.2", 6379)
USER = ("acl", "setuser", "bus", "on", ">pass@secret", "~*", "&*", "+@all")


class Round(Event, name="sentinel.round", keep="log"):
    n: int


# --- without servers ----------------------------------------------------------------------------------------------


def test_more_than_half_of_the_sentinels_decide() -> None:
    view = MasterView(3)
    view.answered(0, ONE)
    assert (view.master, view.likely) == (None, ONE)
    view.answered(1, TWO)
    view.answered(2, TWO)
    assert view.master == TWO
    view.answered(0, ONE)
    assert view.master == TWO, "one that is cut off from the others changes nothing"


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([ONE, TWO])), max_size=8), st.integers(0, 2))
def test_an_event_counts_immediately_whatever_was_answered_before(
    answers: list[tuple[int, Endpoint]], one: int
) -> None:
    view, other = MasterView(3), Endpoint("10.0.0.3", 6379)
    for sentinel, endpoint in answers:
        view.answered(sentinel, endpoint)
    view.switched(one, other)
    view.answered((one + 1) % 3, ONE)
    assert view.master == other


def session(view: MasterView) -> SentinelSession:
    return SentinelSession(view, 0, parse_redis_url("redis+sentinel://h:1/mine?sentinel_password=p"))


def test_the_events_of_other_masters_are_ignored() -> None:
    view = MasterView(1)
    text = "theirs 10.0.0.1 6379 10.0.0.2 6379"
    event = f">3\r\n$7\r\nmessage\r\n$14\r\n+switch-master\r\n${len(text)}\r\n{text}\r\n".encode()
    session(view).feed(event)
    assert view.master is None
    session(view).feed(event.replace(b"theirs", b"mine").replace(b"$34", b"$32"))
    assert view.master == TWO


@pytest.mark.parametrize(
    ("reply", "text"),
    [(b"_\r\n", "no master named mine"), (b"-NOAUTH x\r\n", "NOAUTH"), (b"nonsense\r\n", "no reply")],
)
def test_what_a_sentinel_cannot_say_is_an_error(reply: bytes, text: str) -> None:
    with pytest.raises(Unavailable, match=text):
        session(MasterView(1)).feed(reply)


# --- three sentinels ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelSystem]:
    with running_sentinels(tmp_path_factory.mktemp("sentinels")) as system:
        yield system


@pytest.fixture
def system(running: SentinelSystem) -> SentinelSystem:
    """The system, with all parts that an earlier test has killed."""
    for part in (*running.servers, *running.sentinels):
        if part.process is None:
            part.start()
    running.wait_ready()
    for server in running.servers:
        server.client.execute_command(*USER)
    return running


@pytest.fixture
def settings(system: SentinelSystem) -> BusSettings:
    url = system.url.replace("://", "://bus:pass%40secret@")
    return BusSettings(redis_url=url, retry_max=0.3, spool=False)


async def eventually(condition: Callable[[], object], what: str) -> None:
    await asyncio.to_thread(wait_until, condition, what, 20)


async def test_workers_and_gateways_follow_a_failover_and_a_kill(system: SentinelSystem, settings: BusSettings) -> None:
    bus, heard = Bus(settings), Heard()
    subscriber, reader = connect(settings)
    probe = connect_probe(settings)
    assert probe is not None
    await subscriber.start(heard)
    await eventually(lambda: heard.restorations, "the subscription")
    await subscriber.subscribe("user:ann")
    try:
        for n, change in enumerate((None, planned, killed)):
            if change is not None:
                old = system.master
                await asyncio.to_thread(change, system)
                await eventually(lambda n=n: heard.restorations > n, "the new subscription")
                assert system.master is not old
            receipt = bus.emit("ann", "op", Round(n=n))
            assert await asyncio.to_thread(bus.flush, 10), f"round {n}"
            assert receipt.status == "published"
            await eventually(lambda n=n: len(heard.received_) > n, f"event {n}")
            assert await probe.publish_canary(f"canary {n}", "one") is None
            await eventually(lambda n=n: f"canary {n}" in heard.probes, f"canary {n}")
            at_master = system.master.client.execute_command("HGET", "eb:{user:ann}:state", "offset")
            assert int(at_master) == (await reader.positions(["user:ann"]))[0].offset
    finally:
        bus.close()
        await asyncio.gather(subscriber.aclose(), reader.aclose(), probe.aclose())


def planned(system: SentinelSystem) -> None:
    system.fail_over()


def killed(system: SentinelSystem) -> None:
    old = system.master
    old.kill()
    system.wait_for_another(old)


def test_the_old_master_is_left_at_the_event_although_it_takes_writes(
    system: SentinelSystem, settings: BusSettings
) -> None:
    connection = BlockingConnection(settings)
    connection.round_trip([("SET", "a", "1", "EX", 60)])
    old, new = system.master, system.fail_over()
    assert old.role == "master", "it does not know yet"
    wait_until(
        lambda: connection.round_trip([("SET", "b", "1", "EX", 60)]) and connection.endpoint.port == new.port, "it"
    )
    assert new.client.exists("b")


def test_a_stopped_sentinel_delays_nothing(system: SentinelSystem, settings: BusSettings) -> None:
    system.sentinels[0].process.send_signal(signal.SIGSTOP)
    system.sentinels[1].kill()
    try:
        connection = BlockingConnection(settings.model_copy(update={"socket_timeout": 0.5}))
        assert connection.round_trip([("PING",)]) == [b"PONG"]
    finally:
        system.sentinels[0].process.send_signal(signal.SIGCONT)


def test_a_forked_child_follows_too(system: SentinelSystem, settings: BusSettings) -> None:
    connection = BlockingConnection(settings)
    connection.round_trip([("PING",)])
    pid = os.fork()
    if pid == 0:
        os._exit(0 if connection.round_trip([("PING",)]) == [b"PONG"] else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_wrong_name_and_no_sentinel_are_reported(system: SentinelSystem, settings: BusSettings) -> None:
    short = {"connect_timeout": 0.3, "socket_timeout": 0.3}
    wrong = settings.model_copy(update={"redis_url": system.url.replace("mymaster", "other"), **short})
    with pytest.raises(Unavailable, match="knows no master named other"):
        BlockingConnection(wrong).round_trip([("PING",)])
    nowhere = settings.model_copy(update={"redis_url": "redis+sentinel://127.0.0.1:1/mymaster", **short})
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
        BlockingConnection(nowhere).round_trip([("PING",)])
