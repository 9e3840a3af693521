"""Permissions, limits and the end of sessions, in one process."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.webui_adapter.events import Note
from tests.webui_adapter.gateways import eventually, token
from tests.webui_adapter.world import USER, turns, world
from webui_adapter.protocol.commands import Ping, Subscribe, Unsubscribe
from webui_adapter.session.states import State


async def test_a_subscription_that_ends_before_the_authoriser_answers_does_not_begin() -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slowly(*_: object) -> bool:
        asked.set()
        await answer.wait()
        return True

    async with world(slowly) as own:
        line = own.connect()
        await own.settled(line)
        line.send("subscribe", "collection:7:*", ref=1)
        await asked.wait()
        line.send("unsubscribe", "collection:7:*", ref=2)
        answer.set()
        await turns()
        assert "collection:7" not in own.gateway.hub.channels
        assert line.page.data_of("bus.ok") == [{"ref": 2}]


async def test_the_limit_of_topics_counts_those_that_wait() -> None:
    answer = asyncio.Event()

    async def slowly(*_: object) -> bool:
        await answer.wait()
        return True

    async with world(slowly, max_topics=5) as own:
        line = own.connect()
        await own.settled(line)
        for i in range(9):
            line.send("subscribe", f"collection:{i}:*", ref=i)
        refused = {error["ref"]: error for error in line.page.data_of("bus.error")}
        assert set(refused) == {3, 4, 5, 6, 7, 8}
        assert refused[3]["code"] == "too_many_topics"
        assert refused[3]["limit"] == 5
        assert refused[3]["topic"] == "collection:3:*"
        line.send("subscribe", "user:ann:*", ref="again")
        answer.set()
        await own.settled(line, "collection:0", "collection:1", "collection:2")
        assert [event["ref"] for event in line.page.data_of("bus.subscribed") if event.get("ref") == "again"] == [
            "again"
        ]


@pytest.mark.parametrize("answer", [None, 0, "", LookupError("no"), TimeoutError()])
async def test_an_authoriser_that_errs_means_no(answer: object) -> None:
    def odd(*_: object) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with world(odd) as own:
        line = own.connect(topics=("collection:7:*",))
        await eventually(lambda: line.page.data_of("bus.error"), "the refusal")
        assert line.page.data_of("bus.error")[0]["code"] == "forbidden"
        assert line.page.data_of("bus.error")[0]["topic"] == "collection:7:*"


async def test_drain_during_a_recovery() -> None:
    async with world(drain_spread=0.5, shutdown_grace=0.2) as own:
        own.publish(Note(n=1))
        own.reader.hold()
        line = own.connect(f"{USER}=0")
        await eventually(lambda: own.reader.read_and_held, "the reading")
        leaving = asyncio.create_task(own.gateway.drain.run())
        await turns()
        assert 0 <= line.page.data_of("bus.drain")[0]["after_ms"] <= 500
        own.reader.let_go()
        await eventually(lambda: line.page.got("gw.note") == [1], "a session that leaves is served to the end")
        await leaving
        assert line.closed == 4000
        assert own.gateway.not_ready == "leaving"
        late = own.connect()
        assert late.session.output.close_code == 4000


async def test_leaving_takes_no_longer_than_the_sessions_need() -> None:
    async with world(drain_spread=20, shutdown_grace=20) as own:
        lines = [own.connect() for _ in range(5)]
        leaving = asyncio.create_task(own.gateway.drain.run())
        await turns()
        delays = [line.page.data_of("bus.drain")[0]["after_ms"] for line in lines]
        assert len(set(delays)) > 1, "each at its own moment"
        for line in lines:
            own.gateway.disconnect(line.session, 1000)
        async with asyncio.timeout(2):
            await leaving


async def test_a_peer_that_does_not_close_is_cut() -> None:
    async with world(close_timeout=0.3) as own:
        line = own.connect()
        await own.settled(line)
        line.closed = 0  # this line does not close by itself
        line.session.close(4001, "slow")
        own.gateway.flush()
        await eventually(lambda: line.cuts == 1, "the cut")
        assert line.session.state is State.CLOSED
        assert not own.gateway.sessions


async def test_a_failing_deadline_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    async with world(heartbeat_interval=0.3) as own:
        one, other = own.connect(), own.connect()
        await own.settled(one)

        def broken() -> None:
            raise RuntimeError("a transport that raises")

        one.ping = broken
        await eventually(lambda: "cannot check the deadline of a session" in caplog.text, "the failure")
        pings = other.pings
        await eventually(lambda: other.pings > pings + 1, "the other one's pings")


async def test_a_token_that_expires_sooner_counts_immediately() -> None:
    async with world() as own:
        line = own.connect()
        await own.settled(line)
        line.send("auth", token=token("ann", seconds=1), ref=1)
        assert line.page.data_of("bus.ok")[0]["ref"] == 1
        await eventually(lambda: line.closed == 4100, "the end of the token", 3)


async def test_commands_after_close_are_ignored() -> None:
    async with world() as own:
        line = own.connect()
        await own.settled(line)
        line.session.close(4001, "slow")
        for command in (Ping(1), Subscribe("system:a", None, 2), Unsubscribe("system:*", 3)):
            own.gateway.handle(line.session, command)
        assert line.page.data_of("bus.ok") == []


async def test_unknown_close_codes_are_counted_as_one() -> None:
    async with world() as own:
        for code in (1000, 3001, 3002, 4444, 4000):
            own.gateway.disconnect(own.connect().session, code)
        counts = {name: n for name, n in own.gateway.counters.items() if name.startswith("disconnect.")}
        assert counts == {"disconnect.1000": 1, "disconnect.other": 3, "disconnect.4000": 1}
