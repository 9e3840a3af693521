"""Durable mode: an event counts as published when the replicas have it, and not before."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import redis
from hypothesis import example, given
from hypothesis import strategies as st

from eventbus import Bus, BusSettings, Event, Unavailable
from eventbus.backends.ports import Write
from eventbus.backends.redis.durability import Durability, replicas_online
from eventbus.backends.redis.publisher import RedisPublisher
from eventbus.events.encoder import EmissionBuilder
from eventbus.redis_url import Endpoint
from tests.conftest import wait_until
from tests.servers.sentinel import MonitoredServer

LIFE = "8f0c2a91d3"
HERE, THERE = Endpoint("10.0.0.1", 6379), Endpoint("10.0.0.2", 6379)


class Paid(Event, name="durability.paid", keep="log"):
    n: int


def durability(**given: object) -> Durability:
    return Durability(BusSettings(durable="replicas", **given), "eb:durable")


def connect(rule: Durability, server: Endpoint, followers: int, now: float, mark: bytes | None = None) -> None:
    rule.connected(server, [info(followers), mark], now, int(1000 * now))


def mark_of(rule: Durability, now: float) -> bytes:
    """Return the note of a process for those that start later."""
    return str(rule.commands(None, now, int(1000 * now))[0][2]).encode()


def info(online: int, syncing: int = 0) -> bytes:
    states = ["online"] * online + ["wait_bgsave"] * syncing
    lines = [f"slave{n}:ip=10.0.0.9,port=1,state={state},offset=1,lag=0" for n, state in enumerate(states)]
    lines.append(f"master_replid:{LIFE}{'0' * 30}")
    lines.append("slave9:ip=10.0.0.9,port=1,state=online,offset=0,lag=0")  # it loads its first copy
    return "\r\n".join(["# Replication", "role:master", f"connected_slaves:{len(states)}", *lines, ""]).encode()


def test_only_replicas_that_follow_count() -> None:
    assert replicas_online(info(2, 1)) == 2
    assert replicas_online(Unavailable("NOPERM")) is None


def test_all_replicas_that_follow_must_confirm_and_at_least_one() -> None:
    rule = durability()
    assert rule.required == 1
    connect(rule, HERE, 2, 0)
    assert rule.required == 2
    with pytest.raises(Unavailable, match="1 of 2 replicas"):
        rule.check((b"OK", 1, info(2)), named=True, now=0)
    rule.check((b"OK", 2, info(2)), named=True, now=0)
    with pytest.raises(Unavailable, match="another server"):
        rule.check((b"OK", 2, info(2)), named=False, now=0)
    with pytest.raises(Unavailable, match="did not wait"):
        rule.check((b"OK", ValueError("ERR"), info(2)), named=True, now=0)


def test_a_replica_that_has_left_counts_for_the_grace_since_it_may_be_the_new_master() -> None:
    rule = durability(durable_grace=15)
    connect(rule, HERE, 2, 0)
    for now in (1, 15.9):
        with pytest.raises(Unavailable):
            rule.check((b"OK", 1, info(1)), named=True, now=now)
    with pytest.raises(Unavailable):
        rule.check((b"OK", 1, info(1)), named=True, now=16)
    rule.check((b"OK", 1, info(1)), named=True, now=16.1)
    connect(rule, THERE, 0, 17)
    assert rule.required == 1, "another server has other replicas"


def test_a_process_that_starts_counts_the_replicas_that_counted_before() -> None:
    running, late = durability(durable_grace=15), durability(durable_grace=15)
    connect(running, HERE, 2, 100)
    connect(late, HERE, 1, 101, mark_of(running, 100))
    assert late.required == 2, "one replica is being promoted"
    with pytest.raises(Unavailable, match="1 of 2 replicas"):
        late.check((b"OK", 1, info(1)), named=True, now=102)
    later = durability(durable_grace=15)
    connect(later, HERE, 1, 114, mark_of(late, 113))
    with pytest.raises(Unavailable):
        later.check((b"OK", 1, info(1)), named=True, now=116)
    later.check((b"OK", 1, info(1)), named=True, now=116.1)
    assert mark_of(later, 117) == f"{LIFE} 1 0".encode(), "processes that follow prolong nothing"


@pytest.mark.parametrize("mark", [None, b"", b"8f0c2a91d3 x 0", b"0000000000 2 0", b"8f0c2a91d3 2"])
def test_a_mark_of_another_server_or_form_says_nothing(mark: bytes | None) -> None:
    rule = durability()
    connect(rule, HERE, 1, 0, mark)
    assert rule.required == 1


@example([(0, 3, 0.0), (0, 0, 0.0), (0, 2, 5.0), (0, 0, 5.0), (1, 0, 0.0)])
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.floats(0, 5)), max_size=20))
def test_never_fewer_than_followed_within_the_grace(steps: list[tuple[int, int, float]]) -> None:
    rule, now, seen = durability(durable_grace=10), 0.0, [(0.0, 2)]
    connect(rule, HERE, 2, now)
    for confirmed, online, pause in steps:
        now += pause
        needed = max(count for at, count in seen if now - at < 10) if any(now - at < 10 for at, _ in seen) else 1
        try:
            rule.check((b"OK", confirmed, info(online)), named=True, now=now)
        except Unavailable:
            pass
        else:
            assert confirmed >= max(1, needed)
        seen.append((now, online))


# --- a master with two replicas -----------------------------------------------------------------------------------


@pytest.fixture
def servers(tmp_path) -> Iterator[list[MonitoredServer]]:
    started: list[MonitoredServer] = []
    try:
        for n in range(3):
            folder = tmp_path / str(n)
            folder.mkdir()
            server = MonitoredServer(folder, started[0].port if started else None)
            server.start()
            started.append(server)
        wait_until(lambda: online(started[0]) == 2, "the replicas")
        yield started
    finally:
        for server in started:
            server.kill()


def online(server: MonitoredServer) -> int:
    with redis.Redis(port=server.port, protocol=2) as client:
        client.response_callbacks.clear()
        return replicas_online(client.execute_command("INFO", "replication")) or 0


def settings_of(server: MonitoredServer, **given: object) -> BusSettings:
    return BusSettings(
        redis_url=server.url, durable="replicas", durable_timeout=0.2, retry_max=0.1, spool=False, **given
    )


def test_events_wait_while_a_replica_does_not_confirm(servers: list[MonitoredServer]) -> None:
    master, *replicas = servers
    bus = Bus(settings_of(master))
    assert bus.emit("ann", "op", Paid(n=0), strict=True).status == "published"
    replicas[0].process.send_signal(signal.SIGSTOP)
    try:
        receipt = bus.emit("ann", "op", Paid(n=1))
        assert not bus.flush(1)
        assert receipt.status == "waiting"
        with pytest.raises(Unavailable):
            bus.emit("ann", "op", Paid(n=2), strict=True)
    finally:
        replicas[0].process.send_signal(signal.SIGCONT)
    wait_until(lambda: bus.flush(1), "the replica to confirm")
    assert receipt.status in {"published", "duplicate"}
    assert int(replicas[0].client.hget("eb:{user:ann}:state", "offset")) >= 2
    bus.close()


def test_a_repeated_event_on_a_new_connection_still_waits(servers: list[MonitoredServer]) -> None:
    """WAIT on a connection that has written nothing confirms immediately, whatever the replicas have."""
    master, *replicas = servers
    first, second = RedisPublisher(settings_of(master)), RedisPublisher(settings_of(master))
    emission = EmissionBuilder(settings_of(master)).build("user:ann:operation:9", Paid(n=0))
    request = Write("user:ann", [emission])
    first.publish([request])
    for replica in replicas:
        replica.process.send_signal(signal.SIGSTOP)
    try:
        for publisher in (first, second):
            with pytest.raises(Unavailable, match="0 of 2 replicas"):
                publisher.publish([request])
    finally:
        for replica in replicas:
            replica.process.send_signal(signal.SIGCONT)


def test_one_replica_is_enough_if_settings_say_so(servers: list[MonitoredServer]) -> None:
    master, *replicas = servers
    replicas[0].kill()
    bus = Bus(settings_of(master, durable_replicas=1))
    assert bus.emit("ann", "op", Paid(n=0), strict=True).status == "published"
    bus.close()


def test_without_replicas_no_event_counts_as_published(own_redis) -> None:
    bus = Bus(settings_of(own_redis))
    receipt = bus.emit("ann", "op", Paid(n=0))
    assert not bus.flush(1)
    assert receipt.status == "waiting"
    bus.close()


def test_a_process_that_starts_while_a_replica_is_promoted(servers: list[MonitoredServer]) -> None:
    """The old master still takes writes, and its other replica confirms them. No process may trust that."""
    master, promoted, _ = servers
    running = Bus(settings_of(master))
    assert running.emit("ann", "op", Paid(n=0), strict=True).status == "published"
    promoted.client.replicaof("NO", "ONE")
    wait_until(lambda: online(master) == 1, "the replica to leave")
    late = Bus(settings_of(master))
    receipt = late.emit("ann", "op", Paid(n=1))
    assert not late.flush(1)
    assert receipt.status == "waiting"
    for bus in (running, late):
        bus.close()
