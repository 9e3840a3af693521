"""The pure parts of routing: owners, redirections, groups, canaries."""

from __future__ import annotations

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from eventbus.backends.redis.cluster.canaries import CanaryParts, write_part
from eventbus.backends.redis.cluster.commands import group_by_slot, held_back
from eventbus.backends.redis.cluster.topology import Topology, read_redirection, slot_of, slot_of_command
from eventbus.redis_url import Endpoint

ONE, TWO = Endpoint("10.0.0.1", 1), Endpoint("10.0.0.2", 2)
USERS = ("ann", "bob", "cyd")


def evalsha(user: str, n: int):
    return ("EVALSHA", "sha", 1, f"eb:{{user:{user}}}:state", n)


def test_a_topology_names_each_owner_once() -> None:
    reply = [[0, 8191, [b"", 1, b"a"], [b"10.0.0.9", 9, b"r"]], [8192, 16382, [b"10.0.0.2", 2, b"b"]]]
    topology = Topology.read(reply, ONE)
    assert topology.masters == [ONE, TWO], "a node that names no host means itself"
    assert (topology.owner(0), topology.owner(8192), topology.owner(16383)) == (ONE, TWO, None)
    assert not topology.is_complete


@pytest.mark.parametrize(
    ("text", "node", "once"),
    [
        ("MOVED 7 10.0.0.2:2", TWO, False),
        ("ASK 7 10.0.0.2:2", TWO, True),
        ("Redis is a cluster (MOVED 7 :5); set", Endpoint("10.0.0.1", 5), False),
        ("MOVED 7 2001:db8::1:2", Endpoint("2001:db8::1", 2), False),
        ("EXECABORT discarded because of: MOVED 7 10.0.0.2:2", TWO, False),
    ],
)
def test_a_redirection_names_the_other_node(text: str, node: Endpoint, once: bool) -> None:
    found = read_redirection(text, ONE)
    assert found is not None
    assert (found.slot, found.node, found.once) == (7, node, once)
    topology = Topology([ONE] * 16384)
    topology.note(found)
    assert topology.owner(7) == (ONE if once else node), "ASK does not change the owner"


def test_other_errors_are_no_redirection() -> None:
    assert read_redirection("TRYAGAIN Multiple keys request during rehashing of slot", ONE) is None


def test_a_command_has_the_slot_of_its_keys() -> None:
    assert slot_of_command(evalsha("ann", 1)) == slot_of("{user:ann}")
    assert slot_of_command(("ZADD", "eb:{index}", 1, "user:ann")) == slot_of("{index}")
    assert slot_of_command(("SCRIPT", "LOAD", "return 1")) is None


@given(st.lists(st.sampled_from(USERS), max_size=30))
def test_groups_keep_the_order_of_each_channel_and_lose_nothing(users: list[str]) -> None:
    commands = [evalsha(user, n) for n, user in enumerate(users)]
    groups = group_by_slot(commands)
    assert sorted(place for group in groups for place in group.places) == list(range(len(commands)))
    for group in groups:
        assert group.places == sorted(group.places)
        assert {commands[place][3] for place in group.places} == {group.commands[0][3]}


def test_several_calls_of_a_slot_are_one_transaction() -> None:
    (group,) = group_by_slot([evalsha("ann", 1), evalsha("ann", 2)])
    assert [command[0] for command in group.wire] == ["MULTI", "EVALSHA", "EVALSHA", "EXEC"]
    assert group.read([b"OK", b"QUEUED", b"QUEUED", [1, 2]]) == [1, 2]
    moved, aborted = redis.ResponseError("ASK 7 10.0.0.2:2"), redis.ResponseError("EXECABORT")
    replies = group.read([b"OK", b"QUEUED", moved, aborted])
    assert replies == [moved, moved], "the node took none of them"
    elsewhere = group.redirection(replies, ONE)
    assert elsewhere is not None
    group.asked = elsewhere.node
    assert group.wire[0] == ("ASKING",)
    assert group.read([b"OK", b"OK", b"QUEUED", b"QUEUED", [1, 2]]) == [1, 2]


def test_a_group_that_was_refused_in_part_is_not_redirected() -> None:
    (group,) = group_by_slot([evalsha("ann", 1), evalsha("ann", 2)])
    assert group.redirection([1, redis.ResponseError("MOVED 7 10.0.0.2:2")], ONE) is None


def test_only_the_scripts_that_are_missing_are_sent_again() -> None:
    (group,) = group_by_slot([evalsha("ann", 1), evalsha("ann", 2)])
    again = group.without_script([1, redis.ResponseError("NOSCRIPT No matching script")])
    assert again is not None
    assert (again.places, again.commands) == ([1], [evalsha("ann", 2)])
    assert group.without_script([1, 2]) is None


def test_a_call_waits_for_the_index_that_has_to_name_its_channel() -> None:
    error = redis.ConnectionError("gone")
    before = [("ZADD", "eb:{index}", "LT", 1, "user:ann"), ("ZADD", "eb:leases", "LT", 1, "user:bob op")]
    assert held_back([*before, ("EXPIRE", "eb:leases", 1)], [error, 1, error]) == {slot_of("{user:ann}"): error}
    assert held_back(before, [1, error]) == {slot_of("{user:bob}"): error}


def test_a_canary_has_arrived_when_all_its_parts_have() -> None:
    parts = CanaryParts()
    assert parts.add(write_part("a", 0, 2)) is None
    assert parts.add(write_part("b", 1, 2)) is None
    assert parts.add(write_part("a", 0, 2)) is None, "the same part twice"
    assert parts.add(write_part("a", 1, 2)) == "a"
    assert parts.add("of one server") == "of one server"
