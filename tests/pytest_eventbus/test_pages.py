"""The fixtures of the plugin as a user has them: a bus, a gateway, pages."""

from __future__ import annotations

import pytest

from eventbus import BusSettings, broadcast, default_bus, emit
from eventbus.testing import like
from tests.eventbus.testing.events import Indexed, Promise, State


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch):
    monkeypatch.setenv("EVENTBUS_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("EVENTBUS_KEY_PREFIX", "production")


def test_the_bus_belongs_to_the_process_and_is_on_the_throw_away_server(
    eventbus_bus, eventbus_server, eventbus_environment
):
    assert default_bus() is eventbus_bus
    assert emit("ann", "1", State(done=1), strict=True).offset == 1
    prefix = eventbus_bus.settings.key_prefix
    assert prefix != "production"
    assert list(eventbus_server.client.scan_iter(match=f"{prefix}:*"))
    settings = {name.removeprefix("EVENTBUS_").lower(): value for name, value in eventbus_environment.items()}
    assert BusSettings(**settings) == eventbus_bus.settings


def test_the_next_test_begins_anew(eventbus_bus):
    assert emit("ann", "1", State(done=1), strict=True).offset == 1


async def test_a_page_gets_what_it_waits_for(eventbus_bus, eventbus_connect, eventbus_user):
    async with eventbus_connect(eventbus_user) as page:
        for n in range(3):
            emit(eventbus_user, "op-1", Indexed(document=f"{n}.pdf", words=n))
        assert (await page.event(Indexed, document="2.pdf")).words == 2
        assert (await page.event(Indexed, document="0.pdf")).words == 0
        page.events.in_order(like(Indexed, words=0), like(Indexed, words=1), like(Indexed, words=2))
        assert page.events.to(user=eventbus_user, op="op-1")[0].offset == 1


async def test_another_page_goes_on_from_a_cursor(eventbus_bus, eventbus_connect, eventbus_user):
    async with eventbus_connect(eventbus_user) as page:
        emit(eventbus_user, "op-1", Indexed(document="a"))
        await page.event(Indexed)
    emit(eventbus_user, "op-1", Indexed(document="b"))
    async with eventbus_connect(eventbus_user, cursor=page.cursor) as page:
        assert (await page.event(Indexed)).document == "b"
        page.events.none(Indexed, document="a")


async def test_a_page_reads_a_collection_that_its_token_names(eventbus_bus, eventbus_connect, eventbus_user):
    async with eventbus_connect(eventbus_user, collections=["7"]) as page:
        await page.subscribe("collection:7:*")
        with pytest.raises(AssertionError, match="collection:8:\\* is refused"):
            await page.subscribe("collection:8:*")
        broadcast("7", Indexed(document="shared"))
        await page.event(Indexed, document="shared")
    async with eventbus_connect(
        eventbus_user, topics=("collection:7:*",), collections=["7"], cursor="collection:7=0"
    ) as late:
        await late.event(Indexed, document="shared")


async def test_a_page_acknowledges(eventbus_bus, eventbus_connect, eventbus_user):
    receipt = emit(eventbus_user, "op-1", Promise(what="ready"))
    async with eventbus_connect(eventbus_user) as page:
        promise = await page.event(Promise, what="ready")
        with pytest.raises(TypeError, match="by itself"):
            page.events.acknowledge(promise)
        assert await receipt.delivered(5)


async def test_a_missing_event_is_reported_with_those_that_came(eventbus_bus, eventbus_connect, eventbus_user):
    async with eventbus_connect(eventbus_user) as page:
        emit(eventbus_user, "op-1", Indexed(document="a.pdf", words=3))
        await page.event(Indexed)
        with pytest.raises(AssertionError) as caught:
            await page.event(Indexed, 0.05, document="b.pdf")
    assert (
        str(caught.value)
        == f"""\
no Indexed(document='b.pdf') came within 0.05 s
nearest is 1:
  document is 'a.pdf', expected 'b.pdf'
what came, 1:
  1. Indexed(document='a.pdf', words=3) to user:{eventbus_user}:operation:op-1"""
    )


async def test_a_refusal_of_the_gateway_is_reported_too(eventbus_bus, eventbus_connect, eventbus_user):
    async with eventbus_connect(eventbus_user, topics=("collection:8:*",)) as page:
        broadcast("8", Indexed(document="a.pdf"))
        with pytest.raises(AssertionError) as caught:
            await page.event(Indexed, 0.05)
    *_, before, said = str(caught.value).splitlines()
    assert before == "the gateway sent:"
    assert said.startswith('  bus.error: {"code": "forbidden"')
