"""The registry of gateway instances (real Redis): leases by Redis' clock, one for each process."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventbus import BusSettings
from eventbus.backends.instances import InstanceRecord, InstanceState, parse_instance
from eventbus.backends.redis.instance_registry import Instances, RedisInstanceRegistry
from eventbus.backends.redis.reader import RedisReader
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.errors import InvalidRecord
from tests.conftest import wait_until

records = st.builds(
    InstanceRecord,
    name=st.text(min_size=1),
    version=st.text(),
    format=st.integers(1, 99),
    host=st.text(),
    pid=st.integers(1, 2**22),
    started=st.integers(0, 2**42),
    state=st.sampled_from(InstanceState),
    reason=st.text(),
    connections=st.integers(0, 2**31),
    users=st.integers(0, 2**31),
    cpu=st.floats(0, 64),
    memory=st.integers(0, 2**40),
    lag=st.floats(0, 1e6),
)


def record(name: str = "gateway-1", started: int = 0, **others) -> InstanceRecord:
    return InstanceRecord(
        name=name, version="1", format=2, host="h", pid=1, started=started, state=InstanceState.READY, **others
    )


@pytest.fixture(params=["redis", "cluster"])
def settings(request: pytest.FixtureRequest, bus_settings: BusSettings) -> BusSettings:
    if request.param == "cluster":
        return bus_settings.model_copy(update={"redis_url": request.getfixturevalue("redis_cluster").url})
    return bus_settings


@pytest.fixture
async def registry(settings: BusSettings) -> AsyncIterator[RedisInstanceRegistry]:
    reader = RedisReader(settings)
    yield RedisInstanceRegistry(settings, reader)
    await reader.aclose()


@pytest.fixture
def hasty(bus_settings: BusSettings) -> BusSettings:
    """Leases that end immediately, and are forgotten soon."""
    return bus_settings.model_copy(update={"instance_lease": 0.01, "instance_window": 0.3})


@pytest.fixture
async def hasty_registry(hasty: BusSettings) -> AsyncIterator[RedisInstanceRegistry]:
    reader = RedisReader(hasty)
    yield RedisInstanceRegistry(hasty, reader)
    await reader.aclose()


def listed(settings: BusSettings) -> list[tuple[str, str, str]]:
    client = Instances(settings)
    try:
        return [(lease.life, lease.record.name, lease.state) for lease in client.list()]
    finally:
        client.close()


@given(records)
def test_a_record_survives_the_way_through_redis(one):
    assert parse_instance(one.json.encode()) == one


def test_a_record_of_a_newer_version_is_read():
    assert parse_instance(record().json.replace("{", '{"shoe_size":43,', 1).encode()) == record()


@pytest.mark.parametrize("text", [b"", b"[]", b"7", b'{"name":"a"}', b'{"state":"asleep"}', b"\xff"])
def test_what_is_no_record_is_an_error_with_a_name(text):
    with pytest.raises(InvalidRecord, match="record of a gateway instance"):
        parse_instance(text)


async def test_an_instance_is_listed_until_it_leaves(settings, registry):
    assert await registry.renew("a1", record()) == (False, 0)
    assert await registry.renew("a1", record(connections=7)) == (True, 0)
    client = Instances(settings)
    (lease,) = client.list()
    client.close()
    assert (lease.life, lease.record.connections, lease.state) == ("a1", 7, "ready")
    assert 0 < lease.left <= settings.instance_lease
    await registry.leave("a1")
    assert listed(settings) == []


async def test_a_lease_belongs_to_a_process_and_not_to_its_name(settings, registry):
    """A restarted gateway has the same name. The old process must not pass for the new one."""
    await registry.renew("a1", record(started=1))
    assert await registry.renew("a2", record(started=2)) == (False, 1)
    assert await registry.renew("b1", record("gateway-2")) == (False, 0)
    assert listed(settings) == [
        ("a2", "gateway-1", "ready"),
        ("a1", "gateway-1", "ready"),
        ("b1", "gateway-2", "ready"),
    ]
    await registry.leave("a1")
    assert [life for life, _, _ in listed(settings)] == ["a2", "b1"]
    assert await registry.renew("a2", record(started=2)) == (True, 0)


async def test_an_instance_without_heartbeat_is_lost_then_forgotten(hasty, hasty_registry):
    await hasty_registry.renew("a1", record())
    wait_until(lambda: listed(hasty) == [("a1", "gateway-1", "lost")], "the end of the lease")
    # A lost namesake is no other running process.
    assert (await hasty_registry.renew("a2", record())).namesakes == 0

    async def beat() -> list[str]:
        await hasty_registry.renew("b1", record("gateway-2"))
        return [life for life, _, _ in listed(hasty)]

    while "a1" in await beat():
        pass


async def test_a_process_that_slept_through_its_lease_learns_it(hasty, hasty_registry):
    await hasty_registry.renew("a1", record())
    wait_until(lambda: [state for _, _, state in listed(hasty)] == ["lost"], "the end of the lease")
    assert not (await hasty_registry.renew("a1", record())).continuous


async def test_an_unreadable_record_hides_no_other(settings, registry, redis_server):
    await registry.renew("a1", record())
    await registry.renew("b1", record("gateway-2"))
    reader = RedisReader(settings)
    await reader.execute("HSET", Keys.of(settings).instances[1], "a1 gateway-1", b"\xff\n")
    await reader.aclose()
    assert listed(settings) == [("b1", "gateway-2", "ready")]
