"""The events that a page receives: snapshot, live events, patterns, permissions, and a resume."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

import pytest

from eventbus import Bus, BusSettings
from tests.webui_adapter.events import Alarm, Blip, Brief, Note, Progress
from tests.webui_adapter.gateways import GatewayProcess, page, token
from tests.webui_adapter.page import Page

Publish = Any


async def test_live_events_in_order(gateway: GatewayProcess, user: str, publish: Publish) -> None:
    async with page(gateway, user) as client:
        publish(user, *(Note(n=i) for i in range(100)))
        await client.until(lambda p: len(p.events) == 100)
        assert client.page.got("gw.note") == list(range(100))
        event = client.page.events[0]
        assert event["topic"] == f"user:{user}:operation:op"
        assert event["type"] == "gw.note"
        assert set(event) == {"offset", "id", "type", "topic", "time", "data"}


async def test_a_new_session_gets_the_present_state(gateway: GatewayProcess, user: str, publish: Publish) -> None:
    publish(user, Note(n=1), *(Progress(done=i, part=part) for i in range(5) for part in "ab"), Blip(n=1))
    async with page(gateway, user) as client:
        assert [(e["data"]["part"], e["data"]["done"]) for e in client.page.events] == [("a", 4), ("b", 4)]
        assert [event["how"] for event in client.page.data_of("bus.subscribed")] == ["snapshot", "snapshot"]
        positions = {event["channel"]: event["offset"] for event in client.page.data_of("bus.position")}
        assert client.page.positions[f"user:{user}"].offset == positions[f"user:{user}"] >= 4


async def test_a_returning_session_gets_each_log_event_once_in_order_and_the_newest_state(
    gateway: GatewayProcess, user: str, publish: Publish
) -> None:
    async with page(gateway, user) as client:
        publish(user, Note(n=0), Progress(done=0))
        await client.until(lambda p: len(p.events) == 2)
        model = client.page
    for i in range(1, 40):
        publish(user, Note(n=i), Progress(done=i), Blip(n=i))
    async with page(gateway, user, model) as client:
        publish(user, Note(n=40))
        await client.until(lambda p: p.got("gw.note")[-1:] == [40])
        assert client.page.got("gw.note") == list(range(41))
        assert client.page.got("gw.progress", "done") == [0, 39]
        assert client.page.got("gw.blip") == [], "live only"
        assert client.page.data_of("bus.subscribed")[-1]["how"] in ("resumed", "snapshot")
        assert client.page.data_of("bus.gap") == []


async def test_from_the_beginning(gateway: GatewayProcess, user: str, publish: Publish) -> None:
    publish(user, *(Note(n=i) for i in range(10)))
    async with page(gateway, user, f"user:{user}=0") as client:
        assert client.page.got("gw.note") == list(range(10))


async def test_many_reconnections(gateway: GatewayProcess, user: str, publish: Publish) -> None:
    model = Page(f"user:{user}=0")
    for i in range(8):
        publish(user, Note(n=2 * i))
        async with page(gateway, user, model) as client:
            publish(user, Note(n=2 * i + 1))
            await client.until(lambda p: p.got("gw.note") == list(range(2 * i + 2)))  # noqa: B023 - waited for here


async def test_expired_events_are_not_replayed(gateway: GatewayProcess, user: str, publish: Publish) -> None:
    publish(user, Brief(n=1), Note(n=1))
    async with page(gateway, user, f"user:{user}=0") as client:
        assert [e["type"] for e in client.page.events] == ["gw.brief", "gw.note"]
        end = client.page.events[0]["time"] + 1000
        while (await client.request(do="ping"))["time"] <= end:
            await asyncio.sleep(0.05)
    async with page(gateway, user, f"user:{user}=0") as client:
        assert [e["type"] for e in client.page.events] == ["gw.note"]


async def test_a_cursor_of_another_epoch_is_a_gap(gateway: GatewayProcess, user: str, publish: Publish) -> None:
    publish(user, Note(n=1), Progress(done=7))
    async with page(gateway, user) as client:
        epoch = client.page.positions[f"user:{user}"].epoch
    for cursor, reason in ((f"user:{user}={epoch}.99", "ahead"), (f"user:{user}=abc.1", "epoch")):
        async with page(gateway, user, cursor) as client:
            (gap,) = client.page.data_of("bus.gap")
            assert gap == {"channel": f"user:{user}", "reason": reason, "epoch": epoch, "offset": 2}
            assert (
                client.page.data_of("bus.subscribed")[0]["how"] == "gap"
                or client.page.data_of("bus.subscribed")[1]["how"] == "gap"
            )
            assert client.page.got("gw.progress", "done") == [7]
            assert client.page.got("gw.note") == []


async def test_a_cursor_gives_no_rights(gateway: GatewayProcess, user: str, publish: Publish) -> None:
    publish(f"{user}-victim", Note(n=1))
    async with page(gateway, user, f"user:{user}-victim=0,collection:secret=0,user:{user}=0") as client:
        await client.request(do="ping")
        assert {event["channel"] for event in client.page.data_of("bus.subscribed")} == {f"user:{user}", "system"}
        assert client.page.events == []


async def test_a_short_log_is_a_gap(gateway: GatewayProcess, user: str, redis_url: str, key_prefix: str) -> None:
    bus = Bus(BusSettings(redis_url=redis_url, key_prefix=key_prefix, log_limit=10))
    async with page(gateway, user) as client:
        bus.emit(user, "op", Note(n=0))
        await client.until(lambda p: p.got("gw.note") == [0])
        model = client.page
    # Redis trims whole nodes of a hundred.
    for i in range(1, 400):
        bus.emit(user, "op", Note(n=i))
    bus.emit(user, "op", Progress(done=9))
    bus.close()
    async with page(gateway, user, model) as client:
        (gap,) = client.page.data_of("bus.gap")
        assert (gap["reason"], gap["offset"]) == ("trimmed", 401)
        assert client.page.got("gw.note") == [0]
        assert client.page.got("gw.progress", "done") == [9]


# --- patterns and permissions -----------------------------------------------------------------------------------------


async def test_a_pattern_limits_the_events(gateway: GatewayProcess, user: str, publish: Publish) -> None:
    async with page(gateway, user) as client:
        answer = await client.request(do="unsubscribe", topic=f"user:{user}:*")
        assert answer["type"] == "bus.ok"
        answer = await client.request(do="subscribe", topic=f"user:{user}:operation:one")
        assert answer["data"]["topics"] == [f"user:{user}:operation:one"]
        await client.until_settled(f"user:{user}")
        publish(user, Note(n=1), op="one")
        publish(user, Note(n=2), op="two")
        publish(user, Note(n=3), op="one")
        await client.until(lambda p: p.got("gw.note") == [1, 3])
        answer = await client.request(do="subscribe", topic=f"user:{user}:operation:*")
        assert answer["data"]["topics"] == [f"user:{user}:operation:one", f"user:{user}:operation:*"]
        publish(user, Note(n=4), op="three")
        await client.until(lambda p: p.got("gw.note") == [1, 3, 4])
        await client.request(do="unsubscribe", topic=f"user:{user}:operation:*")
        publish(user, Note(n=5), op="three")
        publish(user, Note(n=6), op="one")
        await client.until(lambda p: p.got("gw.note") == [1, 3, 4, 6])
        await client.request(do="unsubscribe", topic=f"user:{user}:operation:one")
        await client.request(do="unsubscribe", topic="system:*")
        publish(user, Note(n=7), op="one")
        await client.request(do="ping")
        await client.request(do="subscribe", topic=f"user:{user}:operation:one", **{"from": "0"})
        await client.until(lambda p: p.got("gw.note")[4:] == [1, 3, 6, 7])


async def test_an_operation_from_its_beginning_in_addition_to_the_channel(
    gateway: GatewayProcess, user: str, publish: Publish, bus: Bus
) -> None:
    """``start_operation`` gives a position; the page that comes later asks for the operation from there."""
    publish(user, Note(n=0), op="before")
    position = bus.position(f"user:{user}")
    publish(user, Note(n=1), op="mine")
    publish(user, Note(n=2), op="other")
    publish(user, Note(n=3), op="mine")
    async with page(gateway, user, wait=False) as client:
        await client.until(lambda p: p.data_of("bus.hello"))
        answer = await client.request(do="subscribe", topic=f"user:{user}:operation:mine", **{"from": str(position)})
        assert answer["data"]["how"] == "resumed"
        publish(user, Note(n=4), op="other")
        await client.until(lambda p: p.got("gw.note") == [1, 3, 4])


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ({"do": "subscribe", "topic": "user:somebody-else:*"}, "forbidden"),
        ({"do": "subscribe", "topic": "user:somebody-else:operation:1"}, "forbidden"),
        ({"do": "subscribe", "topic": "collection:secret:*"}, "forbidden"),
        ({"do": "subscribe", "topic": "collection:broken:*"}, "forbidden"),
        ({"do": "subscribe", "topic": "user:*:x"}, "bad_topic"),
        ({"do": "subscribe", "topic": "*"}, "bad_topic"),
        ({"do": "subscribe", "topic": "collection:7:a?"}, "bad_topic"),
        ({"do": "subscribe", "topic": "system:*", "from": "x.y"}, "bad_command"),
        ({"do": "dance"}, "bad_command"),
    ],
)
async def test_refusals(gateway: GatewayProcess, user: str, command: dict[str, Any], code: str) -> None:
    async with page(gateway, user) as client:
        answer = await client.request(**command)
        assert answer["type"] == "bus.error"
        assert answer["data"]["code"] == code
        assert answer["data"]["message"]
        if code == "forbidden":
            assert answer["data"]["topic"] == command["topic"]
        assert (await client.request(do="ping"))["type"] == "bus.ok", "nothing else is disturbed"


async def test_a_collection_is_for_users_that_the_authoriser_allows(
    gateway: GatewayProcess, user: str, collection: str, bus: Bus
) -> None:
    slow = f"slow-{collection}"
    async with page(gateway, user, member_of=[collection, slow]) as member, page(gateway, f"{user}-x") as stranger:
        for name in (collection, slow):
            answer = await member.request(do="subscribe", topic=f"collection:{name}:documents")
            assert answer["data"]["channel"] == f"collection:{name}"
            answer = await stranger.request(do="subscribe", topic=f"collection:{name}:documents")
            assert answer["data"]["code"] == "forbidden"
            bus.broadcast(name, Note(n=1), topic="documents")
            bus.broadcast(name, Note(n=2), topic="members")
            bus.broadcast(name, Note(n=3), topic="documents")
        assert bus.flush(10)
        await member.until(lambda p: p.got("gw.note") == [1, 3, 1, 3])
        await stranger.request(do="ping")
        assert stranger.page.events == []


async def test_a_collection_by_the_claim_of_the_token(
    brisk: GatewayProcess, user: str, collection: str, bus: Bus
) -> None:
    """``webui_adapter.access.authoriser:by_claim`` is the default; patterns in the query are asked for like commands"""
    topics = (f"collection:{collection}:*", "collection:secret:*")
    async with page(brisk, user, "", *topics, collections=[collection]) as client:
        await client.until(lambda p: p.data_of("bus.error"))
        assert client.page.data_of("bus.error")[0]["topic"] == "collection:secret:*"
        await client.until_settled(f"collection:{collection}")
        bus.broadcast(collection, Note(n=1))
        bus.flush(10)
        await client.until(lambda p: p.got("gw.note") == [1])


async def test_every_session_receives_announcements(gateway: GatewayProcess, user: str, bus: Bus) -> None:
    async with page(gateway, user) as one, page(gateway, f"{user}-b") as two:
        bus.announce(Alarm(n=1))
        bus.flush(10)
        for client in (one, two):
            await client.until(lambda p: p.got("gw.alarm")[-1:] == [1])
        frames = [next(text for text in client.raw if "gw.alarm" in str(text)) for client in (one, two)]
        assert frames[0] == frames[1], "the same bytes"


async def test_large_events_and_text_of_all_kinds(gateway: GatewayProcess, user: str, publish: Publish) -> None:
    texts = ["x" * size for size in (10, 130, 66_000, 500_000)] + [
        "Größe 第1章 😀",
        'a"b\\c\nd\re\tf\u2028g\x7f',
        "</script>",
    ]
    async with page(gateway, user) as client:
        publish(user, *(Note(n=i, pad=text) for i, text in enumerate(texts)))
        await client.until(lambda p: len(p.events) == len(texts))
        assert client.page.got("gw.note", "pad") == texts


def test_the_command_line_of_websockets_shows_readable_events(
    gateway: GatewayProcess, user: str, publish: Publish
) -> None:
    """Type the token, read JSON."""
    with subprocess.Popen(
        [sys.executable, "-m", "websockets", gateway.ws],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({"do": "auth", "token": token(user)}) + "\n")
            process.stdin.flush()
            seen = ""
            while '"bus.position"' not in seen or "user:" not in seen.rpartition('"bus.position"')[2]:
                seen += process.stdout.readline()
            publish(user, Note(n=77))
            while '"n":77' not in seen:
                seen += process.stdout.readline()
        finally:
            process.kill()
    assert '< {"type":"bus.hello"' in seen


async def test_two_tabs_of_one_user(gateway: GatewayProcess, user: str, publish: Publish) -> None:
    async with page(gateway, user) as one, page(gateway, user) as two:
        publish(user, Note(n=1))
        for client in (one, two):
            await client.until(lambda p: p.got("gw.note") == [1])
