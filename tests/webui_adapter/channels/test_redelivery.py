"""Events that must reach a user: kept until acknowledged, the urgent first, redelivered, then dead letters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from eventbus import Bus, BusSettings
from eventbus.backends.dead_letters import parse_dead
from eventbus.backends.redis.pending_store import RedisPendingStore
from eventbus.backends.redis.reader import RedisReader
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.clock import SystemClock
from tests.conftest import RedisServer, wait_until
from tests.webui_adapter.events import Errand, Note, Promise, Summons
from tests.webui_adapter.gateways import GatewayProcess, eventually, page, running
from tests.webui_adapter.page import Page
from tests.webui_adapter.parts import new_context
from webui_adapter.channels.redelivery import RedeliveryScheduler

Publish = Callable[..., None]


@pytest.fixture(scope="module")
def impatient(
    tmp_path_factory: pytest.TempPathFactory, redis_url: str, key_prefix: str
) -> Iterator[tuple[GatewayProcess, GatewayProcess]]:
    """Two gateways that wait for an acknowledgement for a moment only, and give up soon."""
    hurry = {"EVENTBUS_ACK_TIMEOUT": 0.2, "EVENTBUS_ACK_ATTEMPTS": 2}
    folder = tmp_path_factory.mktemp("impatient")
    prefix = f"{key_prefix}x"
    with running(folder, redis_url, prefix, **hurry) as one, running(folder, redis_url, prefix, **hurry) as other:
        yield one, other


@pytest.fixture
def hasty(redis_url: str, key_prefix: str) -> Iterator[Bus]:
    bus = Bus(BusSettings(redis_url=redis_url, key_prefix=f"{key_prefix}x", ack_timeout=0.2, ack_attempts=2))
    yield bus
    bus.close()


class Lists:
    def __init__(self, url: str, prefix: str, user: str) -> None:
        self._redis = redis.Redis.from_url(url)
        self._channel = f"user:{user}"
        self._names = Keys(prefix).pending(self._channel)

    @property
    def pending(self) -> int:
        return int(self._redis.hlen(self._names[0]))

    @property
    def dead(self) -> dict[str, str]:
        entries = self._redis.hgetall(self._names[4])
        return {id_.decode(): parse_dead(self._channel, id_.decode(), entry).reason for id_, entry in entries.items()}


@pytest.fixture
def lists(redis_url: str, key_prefix: str, user: str) -> Lists:
    return Lists(redis_url, key_prefix, user)


@pytest.fixture
def hasty_lists(redis_url: str, key_prefix: str, user: str) -> Lists:
    return Lists(redis_url, f"{key_prefix}x", user)


async def test_a_returning_user_gets_pending_events_the_urgent_first(
    gateway: GatewayProcess, publish: Publish, user: str, lists: Lists
) -> None:
    publish(user, Errand(n=1), Promise(n=2), Note(n=3), Promise(n=4), Summons(n=5))
    async with page(gateway, user) as client:
        assert [event["data"]["n"] for event in client.page.events] == [5, 2, 4, 1]
        assert all(event["ack"] is True for event in client.page.events)
        answer = await client.request(do="ack", ids=client.page.unacked)
        assert answer["data"]["acked"] == 4
    assert lists.pending == 0
    async with page(gateway, user) as later:
        assert later.page.events == []


async def test_a_pending_event_in_the_resumed_history_is_delivered_once(
    gateway: GatewayProcess, publish: Publish, user: str
) -> None:
    model = Page()
    async with page(gateway, user, model) as client:
        publish(user, Note(n=0))
        await client.until(lambda page: page.got("gw.note") == [0])
    publish(user, Note(n=1), Promise(n=2), Note(n=3), Summons(n=4), Note(n=5))
    async with page(gateway, user, model) as client:
        assert [event["data"]["n"] for event in model.events] == [0, 4, 2, 1, 3, 5]
        assert len([raw for raw in client.raw if '"gw.promise"' in str(raw)]) == 1, "sent once"
        assert model.positions[f"user:{user}"].offset == 6
        publish(user, Note(n=6))
        await client.until(lambda page: page.got("gw.note") == [0, 1, 3, 5, 6])


async def test_an_unacknowledged_event_is_delivered_with_every_connection(
    gateway: GatewayProcess, publish: Publish, user: str
) -> None:
    publish(user, Promise(n=1))
    for _ in range(2):
        async with page(gateway, user) as client:
            assert client.page.got("gw.promise") == [1]


async def test_a_page_that_has_seen_it_only_acknowledges(
    gateway: GatewayProcess, publish: Publish, user: str, lists: Lists
) -> None:
    async with page(gateway, user) as client:
        publish(user, Promise(n=1))
        await client.until(lambda page: page.got("gw.promise") == [1])
        cursor = client.page.cursor
    async with page(gateway, user, cursor) as reloaded:
        assert reloaded.page.events == []
        assert (await reloaded.request(do="ack", ids=reloaded.page.unacked))["data"]["acked"] == 1
    assert lists.pending == 0


async def test_one_tab_acknowledges_for_all_tabs(
    gateway: GatewayProcess, brisk: GatewayProcess, publish: Publish, user: str, lists: Lists
) -> None:
    async with page(gateway, user) as one, page(brisk, user) as other:
        publish(user, Promise(n=1))
        await one.until(lambda page: page.got("gw.promise") == [1])
        await other.until(lambda page: page.got("gw.promise") == [1])
        await other.request(do="ack", ids=other.page.unacked)
        assert lists.pending == 0
    async with page(gateway, user) as later:
        assert later.page.events == []


async def test_acknowledged_by_position(gateway: GatewayProcess, publish: Publish, user: str, lists: Lists) -> None:
    async with page(gateway, user) as client:
        publish(user, Promise(n=1), Summons(n=2), Errand(n=3))
        await client.until(lambda page: page.got("gw.errand") == [3])
        epoch = client.page.positions[f"user:{user}"].epoch
        assert (await client.request(do="ack", upto=f"{epoch}.2"))["data"]["acked"] == 2
    assert lists.pending == 1


async def test_redelivered_to_every_connection_then_a_dead_letter(
    impatient: tuple[GatewayProcess, GatewayProcess], hasty: Bus, user: str, hasty_lists: Lists
) -> None:
    one, other = impatient
    async with page(one, user) as deaf, page(other, user) as mute:
        receipt = hasty.emit(user, "op", Promise(n=1))
        assert hasty.flush(5)
        for client in (deaf, mute):
            await client.until(lambda page: len(page.unacked) == 3, "the event and two more times")
            assert client.page.got("gw.promise") == [1], "dropped by its id"
        await eventually(lambda: hasty_lists.dead, "the dead letter")
    assert hasty_lists.dead == {receipt.id: "attempts"}
    assert hasty_lists.pending == 0


async def test_a_channel_that_cannot_be_redelivered_does_not_delay_the_others(
    bus_settings: BusSettings, redis_url: str
) -> None:
    settings = bus_settings.model_copy(update={"ack_timeout": 0.001})
    bus, reader = Bus(settings), RedisReader(settings)
    receipts = {user: bus.emit(user, "1", Promise(n=1)) for user in ("ann", "bob")}
    assert bus.flush(5)
    redelivery = RedeliveryScheduler(new_context(clock=SystemClock()), RedisPendingStore(settings, reader), 0.0)
    for user in receipts:
        await redelivery.fetch(f"user:{user}")
    client, keys = redis.Redis.from_url(redis_url), Keys(settings.key_prefix)
    client.set(keys.pending("user:ann")[0], "no hash", ex=60)
    await redelivery._redeliver_due()
    entry = client.hget(keys.pending("user:bob")[0], receipts["bob"].id)
    assert entry.split()[2] == b"1", "attempts"
    assert 0 < redelivery._pending["user:ann"][receipts["ann"].id] - SystemClock().now() < 10, "and is tried again soon"
    await reader.aclose()
    bus.close()


async def test_a_redelivered_event_is_acknowledged(
    impatient: tuple[GatewayProcess, GatewayProcess], hasty: Bus, user: str, hasty_lists: Lists
) -> None:
    async with page(impatient[0], user) as client:
        hasty.emit(user, "op", Promise(n=1))
        await client.until(lambda page: len(page.unacked) == 2, "the event once more")
        await client.request(do="ack", ids=client.page.unacked[:1])
    assert (hasty_lists.pending, hasty_lists.dead) == (0, {})


async def test_pending_events_beyond_the_first_part_follow(
    redis_url: str, key_prefix: str, user: str, tmp_path: Path
) -> None:
    prefix = f"{key_prefix}y"
    bus = Bus(BusSettings(redis_url=redis_url, key_prefix=prefix, ack_timeout=0.2))
    for n in range(25):
        bus.emit(user, "op", Promise(n=n, pad="x" * 100_000))
    assert bus.flush(5)
    bus.close()
    patient = {"EVENTBUS_ACK_TIMEOUT": 0.2, "EVENTBUS_ACK_ATTEMPTS": 50}
    with running(tmp_path, redis_url, prefix, **patient) as gateway:
        async with page(gateway, user) as client:
            assert 0 < len(client.page.got("gw.promise")) < 25, "about a megabyte of it"
            acked = 0
            while acked < 25:
                await client.until(lambda page: page.unacked, "the next part")
                ids, client.page.unacked = client.page.unacked, []
                acked += (await client.request(do="ack", ids=ids))["data"]["acked"]
            assert sorted(client.page.got("gw.promise")) == list(range(25))
    assert (Lists(redis_url, prefix, user).pending, Lists(redis_url, prefix, user).dead) == (0, {})


async def test_no_redelivery_without_a_connection(
    impatient: tuple[GatewayProcess, GatewayProcess], hasty: Bus, user: str, hasty_lists: Lists
) -> None:
    async with page(impatient[0], user):
        pass
    hasty.emit(user, "op", Promise(n=1))
    assert hasty.flush(5)
    # Another user's event goes through all its attempts meanwhile.
    async with page(impatient[0], f"{user}b") as client:
        hasty.emit(f"{user}b", "op", Promise(n=2))
        await client.until(lambda page: len(page.unacked) == 3)
    assert hasty_lists.pending == 1
    async with page(impatient[0], user) as client:
        assert client.page.got("gw.promise") == [1]


@pytest.mark.parametrize(
    ("command", "field"),
    [
        ({}, "ids"),
        ({"ids": []}, "ids"),
        ({"ids": "x"}, "ids"),
        ({"ids": [1]}, "ids"),
        ({"ids": ["a b"]}, "ids"),
        ({"ids": ["a"] * 101}, "ids"),
        ({"ids": ["a"], "upto": "ab.1"}, "ids"),
        ({"upto": 7}, "upto"),
        ({"upto": "xyz"}, "upto"),
    ],
)
async def test_a_malformed_ack_is_refused(
    gateway: GatewayProcess, user: str, command: dict[str, object], field: str
) -> None:
    async with page(gateway, user) as client:
        answer = await client.request(do="ack", **command)
        assert (answer["data"]["code"], answer["data"]["field"]) == ("bad_command", field)


async def test_a_user_cannot_acknowledge_for_another(
    gateway: GatewayProcess, publish: Publish, user: str, lists: Lists
) -> None:
    publish(user, Promise(n=1))
    async with page(gateway, user) as owner, page(gateway, f"{user}thief") as thief:
        assert (await thief.request(do="ack", ids=owner.page.unacked))["data"]["acked"] == 0
    assert lists.pending == 1


async def test_an_unreadable_publication_is_one_dead_letter(
    gateway: GatewayProcess, brisk: GatewayProcess, redis_server: RedisServer, key_prefix: str, user: str, lists: Lists
) -> None:
    async with page(gateway, user), page(brisk, user):
        assert (
            redis_server.client.publish(Keys(key_prefix).live(f"user:{user}"), b"\xffgarbage\nof another program") == 2
        )
        await eventually(lambda: lists.dead, "the dead letter")
    assert list(lists.dead.values()) == ["undecodable"]


async def test_an_ack_while_redis_is_down_is_refused_and_can_be_repeated(
    tmp_path: Path, own_redis: RedisServer
) -> None:
    with running(tmp_path, own_redis.url) as gateway:
        bus = Bus(BusSettings(redis_url=own_redis.url))
        bus.emit("ann", "op", Promise(n=1))
        assert bus.flush(5)
        async with page(gateway, "ann") as client:
            own_redis.kill()
            await client.until(lambda page: page.data_of("bus.degraded"))
            answer = await client.request(do="ack", ids=client.page.unacked)
            assert answer["data"]["code"] == "read_only"
            assert answer["data"]["retry_ms"] > 0
        bus.close()


def test_the_sweeper_reports(gateway: GatewayProcess, publish: Publish, user: str) -> None:
    publish(user, Promise(n=1))
    wait_until(lambda: gateway.metrics().get("eventbus_pending", 0) >= 0, "the sweeper's figures")
