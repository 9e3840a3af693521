"""The key patterns of the roles against all keys that there are. A new key must be put into one of the sets here."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import pytest

from eventbus.backends.redis.acl.roles import ADMIN, BROKER, EMITTER, GATEWAY, METRICS, Role
from eventbus.backends.redis.scripts.keys import Keys

# The names of ``Keys``, by whether emitters need them.
OF_EMITTERS = {
    *("channel", "operation", "operations", "leases", "cancelled", "outbox", "pending", "index", "gateways"),
    *("timeline", "durable", "mark", "durable_at"),
}
NOT_OF_EMITTERS = {
    "swept",
    "totals",
    "oldest",
    "sweeper",
    "revocations",
    "instances",
    "audit",
    "probe",
    "ticket",
    "tickets",
}
CHANNELS = {"live", "canary", "revoked", "control"}
ARGUMENTS = {"channel": "user:42", "operation": "9", "worker": "celery@host", "instance": "gateway-1", "tag": "a1"}
ARGUMENTS |= {"process": "host.17"}


def names() -> Iterator[str]:
    for name, member in vars(Keys).items():
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
            yield name


def keys_of(name: str, *, cluster: bool) -> list[str]:
    keys = Keys("eb", 0, cluster)
    member = vars(Keys)[name]
    if isinstance(member, property):
        found = getattr(keys, name)
    else:
        given = list(inspect.signature(member).parameters)[1:]
        found = member(keys, *(ARGUMENTS.get(one, one) for one in given))
    return [found] if isinstance(found, str) else list(found)


def allowed(role: Role, key: str) -> bool:
    """As Redis matches: ``*`` stands for any text, a brace for itself."""
    return any(re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), key) for pattern in role.keys)


def key_names() -> list[str]:
    no_keys = {"of", "channel_of_live", "channel_of_state", "all_states", "prefix", "database", "cluster"}
    return [name for name in names() if name not in no_keys | CHANNELS]


@pytest.mark.parametrize("cluster", [False, True])
@pytest.mark.parametrize("name", key_names())
def test_a_role_has_its_keys_and_no_others(name: str, cluster: bool) -> None:
    assert (name in OF_EMITTERS) != (name in NOT_OF_EMITTERS), f"decide whether emitters need {name}"
    for key in keys_of(name, cluster=cluster):
        assert allowed(GATEWAY, key)
        assert allowed(ADMIN, key)
        assert not allowed(BROKER, key)
        # In a cluster the pattern of dead letters covers this one too: times, and no events.
        assert allowed(EMITTER, key) is (name in OF_EMITTERS or key == "eb:{index}:dead"), key
        secret = "{user:42}" in key or name in {"audit", "revocations"}
        assert not (secret and allowed(METRICS, key)), "the metrics have no events"


def test_a_prefix_replaces_the_default_one() -> None:
    rules = EMITTER.rules("shop")
    assert "~shop:{*}:log" in rules
    assert not [rule for rule in rules if "eb:" in rule]


def test_a_prefix_of_the_broker_covers_its_queues() -> None:
    rules = BROKER.rules(broker=3, broker_prefix="shop:")
    assert [rule for rule in rules if rule.startswith("~")] == ["~shop:*"]
    assert "&shop:/3.celery.pidbox" in rules
