"""All backends pass the same tests, over Redis and in the process."""

from __future__ import annotations

import asyncio
import json

import pytest

from eventbus import Event
from eventbus.backends.memory.adapters import MemoryBroker, MemoryPublisher
from eventbus.backends.ports import Write
from eventbus.backends.redis.publisher import RedisPublisher
from eventbus.protocol.history import Page
from eventbus.protocol.records import parse_publication


class Logged(Event, name="contract.logged"):
    n: int = 0


class State(Event, name="contract.state", keep="latest", key="part"):
    part: str
    n: int = 0


class Live(Event, name="contract.live", keep="nothing"):
    n: int = 0


class Heard:
    """A listener that writes down what it hears."""

    def __init__(self) -> None:
        self.publications = []
        self.probes = []
        self.revocations = 0
        self.turns = 0
        self.ready = asyncio.Event()
        self.changed = asyncio.Condition()

    def received(self, channel, payload) -> None:
        self.publications.append((channel, parse_publication(payload)))

    def turn_ended(self) -> None:
        self.turns += 1

    def revoked(self) -> None:
        self.revocations += 1

    def canary_received(self, text) -> None:
        self.probes.append(text)

    def lost(self, _) -> None:
        self.ready.clear()

    def restored(self) -> None:
        self.ready.set()

    def records(self, channel="user:42"):
        return [record for name, publication in self.publications if name == channel for record in publication.records]

    async def until(self, count, channel="user:42") -> None:
        async with asyncio.timeout(10):
            while len(self.records(channel)) < count:
                await asyncio.sleep(0.005)


def write(ends, *payloads, channel="user:42", ids=None):
    topic = f"{channel}:operation:9"
    emissions = [ends.builder.build(topic, payload, id_=ids[i] if ids else None) for i, payload in enumerate(payloads)]
    (published,) = ends.publisher.publish([Write(channel, emissions)])
    return published


async def listen(ends, *channels) -> Heard:
    heard = Heard()
    await ends.subscriber.start(heard)
    if ends.settings.redis_url.startswith("redis"):
        await asyncio.wait_for(heard.ready.wait(), 10)
    for channel in channels:
        await ends.subscriber.subscribe(channel)
    return heard


async def test_an_unknown_channel_is_empty(ends):
    history = await ends.reader.read("user:nobody", 0)
    assert history.position.epoch == ""
    assert (history.position.offset, history.logged, list(history.log), list(history.snapshot)) == (0, 0, [], [])


async def test_offsets_are_contiguous_over_everything_published(ends):
    first = write(ends, Logged(n=1), State(part="a"), Live())
    second = write(ends, Logged(n=2))
    assert list(first.offsets) == [1, 2, 3]
    assert list(second.offsets) == [4]
    assert first.position.epoch == second.position.epoch != ""
    assert second.position.offset == 4
    assert ends.publisher.position("user:42") == second.position


async def test_the_log_keeps_logged_events_and_names_the_entry_before(ends):
    write(ends, Logged(n=1), State(part="a"), Logged(n=2), Live(), Logged(n=3))
    history = await ends.reader.read("user:42", 0)
    assert [(entry.previous, entry.record.offset) for entry in history.log] == [(0, 1), (1, 3), (3, 5)]
    assert history.logged == 5
    assert [json.loads(entry.record.event)["data"]["n"] for entry in history.log] == [1, 2, 3]
    assert [json.loads(entry.record.event)["offset"] for entry in history.log] == [1, 3, 5]
    later = await ends.reader.read("user:42", 1)
    assert [entry.record.offset for entry in later.log] == [3, 5]
    assert not (await ends.reader.read("user:42", None)).log


@pytest.mark.parametrize(
    ("after", "page", "offsets", "more"),
    [
        (0, Page(3, 10**6), [1, 2, 3], True),
        (0, Page(4, 10**6), [1, 2, 3, 4], True),
        (0, Page(5, 10**6), [1, 2, 3, 4, 5], False),
        (3, Page(1, 10**6), [4], True),
        (3, Page(2, 10**6), [4, 5], False),
        (5, Page(1, 10**6), [], False),
        (0, Page(5, 1), [1], True),
        (0, Page(5, 400), [1, 2], True),
        (4, Page(5, 1), [5], False),
        (0, None, [1, 2, 3, 4, 5], False),
        (None, Page(1, 1), [], False),
    ],
)
async def test_a_page_of_the_log_has_so_many_entries_and_bytes_and_says_whether_more_follow(
    ends, after, page, offsets, more
):
    """An entry counts 200 to 400 bytes. A page has one entry at least, and ends with the one that reaches its size."""
    write(ends, *(Logged(n=n) for n in range(5)))
    history = await ends.reader.read("user:42", after, page)
    assert [entry.record.offset for entry in history.log] == offsets
    assert history.more is more
    assert history.position.offset == 5


async def test_a_page_of_an_unknown_channel_is_its_last_one(ends):
    for page in (None, Page(1, 1)):
        history = await ends.reader.read("user:42", 0, page)
        assert (history.position, history.logged, list(history.log), history.more) == (("", 0), 0, [], False)


async def test_the_snapshot_keeps_the_newest_per_key(ends):
    write(ends, State(part="a", n=1), State(part="b", n=1), State(part="a", n=2))
    history = await ends.reader.read("user:42", 0)
    assert [(r.offset, json.loads(r.event)["data"]["n"]) for r in history.snapshot] == [(2, 1), (3, 2)]


async def test_a_known_id_is_not_published_again(ends):
    heard = await listen(ends, "user:42")
    first = write(ends, Logged(n=1), Logged(n=2), ids=["one", "two"])
    again = write(ends, Logged(n=9), Logged(n=3), ids=["one", "three"])
    assert list(first.offsets) == [1, 2]
    assert list(again.offsets) == [-1, 3]
    await heard.until(3)
    assert [record.offset for record in heard.records()] == [1, 2, 3]
    nothing_new = write(ends, Logged(n=9), ids=["one"])
    assert (list(nothing_new.offsets), nothing_new.receivers) == ([-1], 0)


async def test_known_ids_among_new_ones_and_an_id_twice_in_one_batch(ends):
    heard = await listen(ends, "user:42")
    write(ends, Logged(), Logged(), ids=["one", "two"])
    mixed = write(ends, *(Logged(n=n) for n in range(5)), ids=["three", "two", "three", "four", "one"])
    assert list(mixed.offsets) == [3, -2, -3, 4, -1]
    # An id that was in the window only for a moment must not count as known.
    assert list(write(ends, Logged(), Logged(), ids=["five", "four"]).offsets) == [5, -4]
    await heard.until(5)
    assert [record.id for record in heard.records()] == ["one", "two", "three", "four", "five"]


async def test_a_batch_that_is_sent_again_is_published_once_however_long_it_is(ends):
    ids = [f"id-{n}" for n in range(4_500)]
    settings = ends.settings.model_copy(update={"dedup_window": 5_000})
    publisher = (
        RedisPublisher(settings) if settings.redis_url.startswith("redis") else MemoryPublisher(MemoryBroker(settings))
    )
    emissions = [ends.builder.build("user:42:operation:9", Live(), id_=id_) for id_ in ids]
    first, again = (publisher.publish([Write("user:42", emissions)])[0] for _ in range(2))
    assert list(first.offsets) == list(range(1, 4_501))
    assert list(again.offsets) == [-offset for offset in first.offsets]
    assert again.position == first.position
    publisher.close()


async def test_ids_are_remembered_per_channel_and_within_the_window(ends):
    write(ends, Logged(), ids=["one"])
    assert list(write(ends, Logged(), channel="user:43", ids=["one"]).offsets) == [1]
    for _ in range(4):
        write(ends, *[Live() for _ in range(50)])
    assert write(ends, Logged(), ids=["one"]).offsets[0] > 0


async def test_publications_arrive_in_order_and_say_what_came_before(ends):
    heard = await listen(ends, "user:42", "collection:7")
    for n in range(20):
        write(ends, Logged(n=n), Live(n=n))
        write(ends, Logged(n=n), channel="collection:7")
    await heard.until(40)
    await heard.until(20, "collection:7")
    assert [record.offset for record in heard.records()] == list(range(1, 41))
    assert [p.before for name, p in heard.publications if name == "user:42"] == list(range(0, 40, 2))
    history = await ends.reader.read("user:42", 0)
    assert {p.epoch for name, p in heard.publications if name == "user:42"} == {history.position.epoch}
    live = {record.offset: record.event for record in heard.records()}
    assert all(live[entry.record.offset] == entry.record.event for entry in history.log)
    assert 0 < heard.turns <= len(heard.publications)


async def test_nothing_arrives_from_channels_that_were_not_asked_for_or_left(ends):
    heard = await listen(ends, "user:42", "user:43")
    write(ends, Logged(), channel="user:44")
    ends.subscriber.unsubscribe("user:43")
    await ends.subscriber.subscribe("user:45")  # acknowledged after the UNSUBSCRIBE was carried out
    write(ends, Logged(), channel="user:43")
    write(ends, Logged())
    await heard.until(1)
    assert {name for name, _ in heard.publications} == {"user:42"}


@pytest.mark.parametrize("ends", ["memory"], indirect=True)
async def test_a_subscriber_that_has_not_begun_or_has_left_hears_nothing(ends):
    """Publishing goes on. A publication that is on its way when its channel is left is dropped."""
    await ends.subscriber.subscribe("user:42")
    write(ends, Logged(n=1))
    heard = await listen(ends, "user:42")
    write(ends, Logged(n=2))
    ends.subscriber.unsubscribe("user:42")
    await asyncio.sleep(0)
    assert heard.publications == []
    await ends.subscriber.subscribe("user:42")
    write(ends, Logged(n=3))
    await heard.until(1)
    await ends.subscriber.aclose()
    write(ends, Logged(n=4))
    await asyncio.sleep(0)
    assert [record.offset for record in heard.records()] == [3]


async def test_a_log_beyond_its_limit_is_trimmed_and_shows_it(ends):
    for n in range(10):
        write(ends, *[Logged(n=n) for _ in range(50)])
    history = await ends.reader.read("user:42", 0)
    assert 50 <= len(history.log) <= 50 + 100
    assert history.log[0].previous > 0
    assert history.logged == 500


async def test_a_snapshot_beyond_its_limit_keeps_the_newest(ends):
    pruned = 0
    for n in range(40):
        pruned += write(ends, State(part=f"p{n}")).pruned
    parts = [json.loads(record.event)["data"]["part"] for record in (await ends.reader.read("user:42", 0)).snapshot]
    assert parts == [f"p{n}" for n in range(40 - len(parts), 40)]
    assert 20 <= len(parts) <= 22
    assert pruned == 40 - len(parts)


async def test_publishers_at_the_same_time_leave_no_hole(ends):
    heard = await listen(ends, "user:42")

    def publish() -> None:
        publisher = ends.another()
        for n in range(10):
            emission = ends.builder.build("user:42:operation:9", Logged(n=n))
            publisher.publish([Write("user:42", [emission])])
        publisher.close()

    await asyncio.gather(*(asyncio.to_thread(publish) for _ in range(4)))
    await heard.until(40)
    assert [record.offset for record in heard.records()] == list(range(1, 41))
    history = await ends.reader.read("user:42", 0)
    assert [entry.record.offset for entry in history.log] == list(range(1, 41))


@pytest.mark.parametrize(
    "text", ["plain", 'quote" back\\slash', "line\nbreak", "\u2028 \U0001f600", "{}[]", "\x00\x1f"]
)
async def test_whatever_text_a_payload_holds_arrives_unchanged(ends, text):
    heard = await listen(ends, "user:42")
    write(ends, State(part=text))
    await heard.until(1)
    (record,) = heard.records()
    assert json.loads(record.event)["data"]["part"] == text
    (state,) = (await ends.reader.read("user:42", 0)).snapshot
    assert state.event == record.event
