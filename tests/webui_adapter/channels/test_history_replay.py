"""The replay to a slow page, in one process."""

from __future__ import annotations

import json

from tests.webui_adapter.events import Note, Progress
from tests.webui_adapter.gateways import eventually
from tests.webui_adapter.world import ONE, TWO, USER, turns, world


async def test_a_client_that_does_not_read_gets_no_history_and_takes_no_memory() -> None:
    async with world() as own:
        own.publish(*(Note(n=i, pad="x" * 500) for i in range(200)))
        line = own.connect()
        await own.settled(line)
        line.session.output.pause_writing()
        before = own.reader.reads
        for i in range(30):
            line.send("subscribe", ONE, **{"from": "0"}, ref=i)
            line.send("unsubscribe", ONE)
        line.send("subscribe", ONE, **{"from": "0"}, ref="last")
        await turns(50)
        assert own.reader.reads == before
        assert sum(map(len, line.session.output.out)) < 10_000
        line.resume()
        await own.settled(line)
        assert line.page.got("gw.note") == list(range(200)), "only what the last one asked for"


async def test_a_replay_waits_for_queued_events() -> None:
    """A slow page, events in its backlog: a further subscription must not set its place back before they came."""
    async with world() as own:
        own.publish(Progress(done=1, part="two"), topic=TWO)
        line = own.connect()
        await own.settled(line)
        line.send("unsubscribe", "user:ann:*")
        line.send("subscribe", ONE)
        await own.settled(line)
        line.session.output.pause_writing()
        own.publish(*(Note(n=i) for i in range(3)))
        await turns()
        line.send("subscribe", TWO)
        own.publish(Note(n=3))
        await turns()
        line.resume()
        await eventually(lambda: line.page.got("gw.note") == [0, 1, 2, 3], "every event once")
        await eventually(lambda: line.page.got("gw.progress", "done") == [1, 1], "the state of the other topic")
        assert line.page.positions[USER].offset == 5


async def test_all_events_of_a_turn_go_out_in_one_write() -> None:
    async with world() as own:
        line = own.connect()
        await own.settled(line)
        flushes: list[int] = []
        flush = line.flush

        def counted() -> None:
            flushes.append(len(line.session.output.out))
            flush()

        line.flush = counted
        for n in range(10):
            own.gateway.listener.received(USER, f"5f {n}\n{n + 1} n log 0 0 gw.note {ONE} -\n".encode() + _event(n + 1))
        assert flushes == []
        own.gateway.listener.turn_ended()
        assert flushes == [11], "bus.subscribed and ten events"
        assert line.page.got("gw.note") == list(range(1, 11))


def _event(offset: int) -> bytes:
    members = {"offset": offset, "id": str(offset), "type": "gw.note", "topic": ONE, "time": 1, "data": {"n": offset}}
    return json.dumps(members).encode()
