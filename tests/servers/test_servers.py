"""The systems of several servers do what tests ask of them."""

from __future__ import annotations

from pathlib import Path

from redis.crc import key_slot

from tests.conftest import wait_until
from tests.servers.cluster import running_cluster
from tests.servers.sentinel import running_sentinels


def test_a_cluster_moves_slots_fails_over_and_grows(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as cluster:
        assert len(cluster.masters) == 3
        slot = key_slot(b"{a}")
        one = cluster.owner("{a}")
        one.client.mset({"{a}1": "x", "{a}2": "y"})
        two = next(node for node in cluster.masters if node is not one)
        cluster.move_slot(slot, two)
        assert cluster.owner("{a}") is two
        assert two.client.mget("{a}1", "{a}2") == [b"x", b"y"]
        cluster.move_slot_atomically(slot, one)
        assert cluster.owner(slot) is one
        three = cluster.add_shard()
        cluster.move_slot(slot, three)
        assert three.client.mget("{a}1", "{a}2") == [b"x", b"y"]
        promoted = cluster.fail_over(two)
        assert cluster.replica_of(promoted) is two
        promoted.kill()
        wait_until(lambda: two in cluster.masters and two.is_master, "the replica to take over")
        promoted.start()
        cluster.wait_ready()
        assert cluster.replica_of(two) is promoted


def test_sentinels_name_another_master_after_a_kill_and_a_failover(tmp_path: Path) -> None:
    with running_sentinels(tmp_path) as system:
        first = system.master
        first.kill()
        second = system.wait_for_another(first)
        second.client.set("a", 1)
        first.start()
        system.wait_ready()
        wait_until(lambda: first.role == "slave", "the old master to follow")
        third = system.fail_over(coordinated=True)
        assert third is not second
        assert third.client.get("a") == b"1"
